//! From raw to resolved `runtime.listen`.

use tls_core::ListenAddress;
use tls_core::{Origin, Sourced};

use crate::problem::Problem;
use crate::raw::spanned::Templated;
use crate::raw::spicepod;
use crate::resolve::decode::instead;
use crate::settings::Listen;

impl spicepod::Listen {
    pub(super) fn decide(self, problems: &mut Vec<Problem>) -> Option<Listen> {
        let mut address = |given: Option<Templated>, default: Option<&str>| -> Option<Sourced<ListenAddress>> {
            let (text, reference) = match given {
                Some(given) => (given.placed.0, given.reference),
                None => (Sourced::new(default?.to_owned(), Origin::Default), false),
            };
            match text.value.trim().parse() {
                Ok(address) => Some(Sourced::new(address, text.origin)),
                Err(error) => {
                    let message = match instead(&text.value, reference, &text.origin) {
                        Some(instead) => format!("{instead} is no address: {error}"),
                        None => format!("`{}` is no address: {error}", text.value),
                    };
                    let problem = Problem::new(text.origin, message).caused_by(error);
                    problems.push(problem.hint("such as localhost:3000, or 0.0.0.0:3000 for all"));
                    None
                }
            }
        };
        let (http, flight, grpc) = (
            address(self.http, Some("localhost:3000")),
            address(self.flight, Some("localhost:50051")),
            address(self.grpc, Some("localhost:50052")),
        );
        let (metrics, probe) = (address(self.metrics, None), address(self.probe, None));
        Some(Listen { http: http?, flight: flight?, grpc: grpc?, metrics, probe, proxy_protocol: self.proxy_protocol })
    }
}
