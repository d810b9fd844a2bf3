//! What the control API says when it cannot do what is asked, and what a reload did.

use std::fmt;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

/// The body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// What is wrong and what to do, in words.
    pub error: String,
    /// The kind, for programs.
    pub code: RefusalCode,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(code: RefusalCode, error: impl fmt::Display) -> Self {
        Self { error: error.to_string(), code }
    }
}

/// Kinds of refusal. Each has its HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// 400: the body is not what the path takes.
    BadRequest,
    /// 404: no such path.
    NotFound,
    /// 405: the path is asked by another method.
    Method,
    /// 408: the body did not come in time.
    Timeout,
    /// 409: nodes have no routes and circuits of their own.
    NotAClient,
    /// 409: there is no such route now.
    NoRoute,
    /// 409: the configuration on disk is wrong; the one in force stays.
    Configuration,
    /// 413: the body is too long.
    TooLarge,
    /// 422: no node of that name is known.
    UnknownNode,
    /// 503: the daemon is starting or stopping.
    Unavailable,
    /// A kind that a later version has.
    #[serde(other)]
    Other,
}

impl RefusalCode {
    /// Its HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::NotAClient | Self::NoRoute | Self::Configuration => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownNode => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Other => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// `POST /v1/reload`: what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What has changed and is in force, in words.
    pub changed: Vec<String>,
    /// What has changed in the configuration and is taken at the next start, by key.
    pub needs_restart: Vec<String>,
}
