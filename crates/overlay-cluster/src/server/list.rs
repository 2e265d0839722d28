//! Lists: what of the state fits a filter, in the order of ids, a page at a time.
//!
//! ```text
//!   request ──► filter, page (checked) ──► walk of ids, after the token's ──► page, next token
//!                                            │ ends when the page is full
//! ```
//!
//! - [`filter`]: fields that filters have, and which objects fit them
//! - [`page`]: how many, from where on, and the token for the rest
//! - one file for each kind of object: its filter, and its list

mod endpoints;
mod filter;
mod networks;
mod nodes;
mod page;
mod services;

pub(super) use endpoints::EndpointList;
pub(super) use networks::NetworkList;
pub(super) use nodes::NodeList;
pub(super) use page::Listed;
pub(super) use services::ServiceList;
