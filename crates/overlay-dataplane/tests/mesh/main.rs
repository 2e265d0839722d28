//! The routing mesh on a real kernel: three hosts, a client and tasks in namespaces that the tests make, with
//! the kernel dataplane between them.

mod flows;
mod forged;
mod others;
mod port;
mod probe;
mod reach;
mod repair;
mod site;
