//! What of the open recordings is for a caller: calls name them by their paths, whoever
//! has opened them.

use super::Legacy;
use super::caller::Caller;
use crate::actors::file_manager::{FileManager, ListOpen, RecordingName, Use};
use crate::error::Error;
use crate::grpc::roots::resolve;
use crate::mef::OpenOptions;

impl Legacy {
    /// A caller's use of a recording by its path for it.
    pub(super) fn unchecked(&self, caller: &Caller, file_path: &str) -> Use {
        Use {
            recording: RecordingName {
                name: file_path.to_owned(),
                // This protocol has no passwords.
                options: OpenOptions {
                    password: self.options.password.clone(),
                },
            },
            client: caller.client.clone(),
        }
    }

    /// A caller's use of a recording by its path for it, if it may use it.
    pub(super) async fn by(&self, caller: &Caller, file_path: &str) -> Result<Use, Error> {
        self.check(caller, file_path).await?;
        Ok(self.unchecked(caller, file_path))
    }

    /// Refuses what is not for the caller, whoever has it open.
    pub(super) async fn check(&self, caller: &Caller, file_path: &str) -> Result<(), Error> {
        let Some(token) = &caller.token else {
            return Ok(());
        };
        let outside = |_| Error::OutsideRoots {
            path: file_path.into(),
        };
        let path = resolve(&self.options, file_path).map_err(outside)?;
        token.check(&path, file_path).await
    }

    /// Asks the file manager about a recording that the caller may use.
    pub(super) async fn ask_by<M, T>(
        &self,
        caller: &Caller,
        file_path: &str,
        question: impl FnOnce(Use) -> M,
    ) -> Result<T, Error>
    where
        M: actix::Message<Result = Result<T, Error>> + Send + 'static,
        T: Send + 'static,
        FileManager: actix::Handler<M>,
        actix::Context<FileManager>: actix::dev::ToEnvelope<FileManager, M>,
    {
        let by = self.by(caller, file_path).await?;
        self.ask(question(by)).await?
    }

    /// The open recordings that the caller may use.
    pub(super) async fn list_open(&self, caller: &Caller) -> Result<Vec<String>, Error> {
        let open = self.ask(ListOpen).await?;
        if caller.token.is_none() {
            return Ok(open);
        }
        let mut usable = Vec::new();
        for file_path in open {
            match self.check(caller, &file_path).await {
                Ok(()) => usable.push(file_path),
                Err(Error::OutsideRoots { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(usable)
    }
}
