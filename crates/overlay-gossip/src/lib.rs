//! Who is alive: SWIM membership over sealed datagrams.
