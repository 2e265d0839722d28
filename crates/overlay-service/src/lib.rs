//! Service names, virtual IPs, backend choice and the DNS server.
