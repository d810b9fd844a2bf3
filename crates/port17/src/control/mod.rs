//! The control API: HTTP/JSON on a Unix socket of mode 0600, described in docs/control-api.md.
//!
//! A daemon implements [`Daemon`] and serves it by a [`ControlSocket`]; the command line asks by [`status`], [`map`], [`circuits`],
//! [`draw_route`] and [`reload`]. Paths carry a version; within one, fields are only added, and an asker ignores those it does not know.

mod asking;
mod map;
mod refusal;
mod route;
mod server;
mod socket;
mod status;

use std::future::Future;

pub use asking::{circuits, draw_route, map, reload, status};
pub use map::{MapLink, MapNode, MeshMap, Trust};
pub use refusal::{Refusal, RefusalCode, Reloaded};
pub use route::{CircuitStatus, Circuits, HopRole, HopSample, RouteSample, RouteWish};
pub use server::{Bounds, exchange};
pub use socket::{ControlError, ControlSocket};
pub use status::{
    BottleStatus, LinkStatus, ListStatus, NetworkStatus, NodeName, ObjectCount, ObjectsStatus, Published, Role, SourceStatus,
    Status, StoreStatus,
};

/// The software's version: every answer carries it.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

const STATUS_PATH: &str = "/v1/status";
const MAP_PATH: &str = "/v1/map";
const CIRCUITS_PATH: &str = "/v1/circuits";
const ROUTE_PATH: &str = "/v1/route";
const RELOAD_PATH: &str = "/v1/reload";

/// The daemon's side: what the control API asks.
pub trait Daemon: Send + Sync + 'static {
    /// The status now.
    ///
    /// # Errors
    /// [`RefusalCode::Unavailable`] while the daemon starts or stops.
    fn status(&self) -> impl Future<Output = Result<Status, Refusal>> + Send;

    /// The mesh as it is known now.
    ///
    /// # Errors
    /// [`RefusalCode::Unavailable`] while the daemon starts or stops.
    fn map(&self) -> impl Future<Output = Result<MeshMap, Refusal>> + Send;

    /// A client's own circuits.
    ///
    /// # Errors
    /// [`RefusalCode::NotAClient`] for a node.
    fn circuits(&self) -> Result<Circuits, Refusal>;

    /// Draws a route as the client would; nothing is sent.
    ///
    /// # Errors
    /// When the wish names what is not known, there is no such route, or this is a node.
    fn draw_route(&self, wish: &RouteWish) -> Result<RouteSample, Refusal>;

    /// Does what SIGHUP does.
    ///
    /// # Errors
    /// [`RefusalCode::Configuration`] when the configuration is wrong: the old one stays.
    fn reload(&self) -> impl Future<Output = Result<Reloaded, Refusal>> + Send;
}
