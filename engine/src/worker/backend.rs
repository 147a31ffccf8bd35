//! Our apalis backend: leased steps come from a channel (bounded by the slots that their leases hold), their ends go to the completer by
//! the layer. An apalis acknowledgement is never the truth; the completing transaction is.

use super::shared::{Job, Shared};
use crate::{commands::complete_attempts::Outcome, error::ErrorClass, executor::StepError};
use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    error::BoxDynError,
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::context::WorkerContext,
};
use futures::future::BoxFuture;
use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Hands leased steps to apalis until the worker is closed.
pub(super) struct StepBackend {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedReceiver<Job>,
    closed: BoxFuture<'static, ()>,
    config: (),
}

impl StepBackend {
    pub fn new(shared: Arc<Shared>, jobs: mpsc::UnboundedReceiver<Job>) -> Self {
        let closed = Box::pin(shared.closed.clone().cancelled_owned());
        Self { shared, jobs, closed, config: () }
    }
}

impl Backend for StepBackend {
    type Task = Task<Arc<Job>>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task, Infallible>>> {
        match self.jobs.poll_recv(cx) {
            Poll::Ready(Some(job)) => {
                let id = TaskId::from_uuid(Uuid::from_u64_pair(0, job.flight.number));
                Poll::Ready(Some(Ok(TaskBuilder::new(Arc::new(job)).task_id(id).build())))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.closed.as_mut().poll(cx).map(|()| None),
        }
    }

    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for StepBackend {
    type Args = Arc<Job>;
    type Id = Uuid;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = CompleteLayer;

    fn config(&self) -> &() {
        &self.config
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> CompleteLayer {
        CompleteLayer(self.shared.clone())
    }
}

/// Sends every end of a step to the completer, also that of a step that panicked.
#[derive(Clone)]
pub(super) struct CompleteLayer(Arc<Shared>);

impl<S> tower::Layer<S> for CompleteLayer {
    type Service = CompleteService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CompleteService { inner, shared: self.0.clone() }
    }
}

#[derive(Clone)]
pub(super) struct CompleteService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> tower::Service<Task<Arc<Job>>> for CompleteService<S>
where
    S: tower::Service<Task<Arc<Job>>, Response = Outcome>,
    S::Error: Into<BoxDynError>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<(), BoxDynError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<Arc<Job>>) -> Self::Future {
        let (shared, job) = (self.shared.clone(), task.args.clone());
        let carried_out = self.inner.call(task);
        Box::pin(async move {
            let outcome = carried_out.await.unwrap_or_else(|error| {
                let error: BoxDynError = error.into();
                Outcome::Failed { error: StepError::new(ErrorClass::Internal, format!("the step broke off: {error}")), input: None }
            });
            shared.finish(job, outcome);
            Ok(())
        })
    }
}
