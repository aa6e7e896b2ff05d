//! The driver's process, as others see it: a socket that answers, or none.

use std::sync::{Arc, Mutex};

use proto::csi::v1::controller_server::ControllerServer;
use proto::csi::v1::identity_server::IdentityServer;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::Driver;

/// What it runs on. Without, nobody is there.
#[derive(Default)]
pub(super) struct Process(Mutex<Option<Runtime>>);

impl Process {
    /// Whether there was one.
    fn end(&self) -> bool {
        let runtime = self.0.lock().unwrap().take();
        runtime.map(Runtime::shutdown_background).is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl Driver {
    /// Serves, on threads of its own: only so all of it goes when it goes.
    pub fn come(&self) {
        let server = Server::builder()
            .add_service(IdentityServer::new(self.served()))
            .add_service(ControllerServer::new(self.served()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(&self.socket).unwrap()
        };
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        *self.process.0.lock().unwrap() = Some(runtime);
    }

    /// As a driver whose process is lost: its calls and connections end. What it has made stays.
    pub fn go(&self) {
        assert!(self.process.end(), "it serves");
        std::fs::remove_file(&self.socket).unwrap();
    }

    /// What serves does not keep itself alive.
    fn served(&self) -> Self {
        Self {
            process: Arc::default(),
            ..self.clone()
        }
    }
}
