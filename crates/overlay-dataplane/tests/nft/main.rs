//! nf_tables against the real kernel, in namespaces that the tests make: what the kernel gives back,
//! what the real `nft` command makes of it, and what becomes of packets.

mod admission;
mod fence;
mod forwarding;
mod gateway;
mod host;
mod mesh;
mod published;
mod rounds;
mod scale;
mod survival;
mod transactions;
