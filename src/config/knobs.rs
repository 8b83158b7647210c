//! The settings as values, with their defaults.
//!
//! Sizes are of decoded samples, in MiB; a name ends in the unit of its value.

use std::net::{AddrParseError, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::access::{Auth, Tls};
use super::roots::DataRoot;
use super::trace::Trace;
use super::web::WebOrigin;

/// Bytes of one MiB.
const MIB: usize = 1 << 20;

/// All settings of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The listener.
    pub server: Server,
    /// Encryption.
    pub tls: Tls,
    /// Who may call.
    pub auth: Auth,
    /// The cache of decoded pages.
    pub cache: Cache,
    /// The processes that read and decode.
    pub workers: Workers,
    /// The unit of reading and caching.
    pub pages: Pages,
    /// Reading before anybody asks.
    pub prefetch: Prefetch,
    /// What the server refuses to exceed.
    pub limits: Limits,
    /// Recordings that are still written.
    pub live: Live,
    /// Whether the server can do its work.
    pub health: Health,
    /// What operators ask the server.
    pub admin: Admin,
    /// The services of the existing clients.
    pub legacy: Legacy,
    /// From a client's path to one of this machine.
    pub paths: Paths,
    /// The log.
    pub log: Log,
    /// Spans of requests.
    pub trace: Trace,
}

/// The listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How long a shutdown waits for streams to finish, in seconds; 0 cuts them
    /// at once.
    pub shutdown_grace_s: u64,
    /// A connection must have begun to speak HTTP/2 after so many seconds.
    pub handshake_limit_s: u64,
    /// A request must have come wholly so many seconds after it began.
    pub request_limit_s: u64,
    /// How often clients are asked whether they are there, in seconds.
    pub keepalive_interval_s: u64,
    /// A client that gives no sign of life for so many seconds after it was asked
    /// is cut.
    pub keepalive_limit_s: u64,
    /// A reply of which no message is taken for so many seconds is given up.
    pub write_stall_limit_s: u64,
    /// Passwords of recordings are taken from other machines over connections that
    /// anybody can listen to. So are tokens.
    pub passwords_in_clear: bool,
    /// Connections of other machines may be without encryption.
    pub insecure: bool,
    /// A Unix domain socket beside the port; empty is off.
    pub unix_socket: PathBuf,
    /// Where pages come from whose scripts may call (gRPC-Web, also over HTTP/1.1); none
    /// is off.
    pub web_origins: Vec<WebOrigin>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)),
            shutdown_grace_s: 5,
            handshake_limit_s: 10,
            request_limit_s: 10,
            keepalive_interval_s: 10,
            keepalive_limit_s: 10,
            write_stall_limit_s: 60,
            passwords_in_clear: false,
            insecure: false,
            unix_socket: PathBuf::new(),
            web_origins: Vec::new(),
        }
    }
}

impl Server {
    /// The Unix domain socket, if there is to be one.
    pub fn unix_socket(&self) -> Option<&Path> {
        given(&self.unix_socket)
    }

    /// How long a shutdown waits for streams to finish.
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_s)
    }

    /// How long a connection may take to begin to speak HTTP/2.
    pub fn handshake_limit(&self) -> Duration {
        Duration::from_secs(self.handshake_limit_s)
    }

    /// How long a request may take to come.
    pub fn request_limit(&self) -> Duration {
        Duration::from_secs(self.request_limit_s)
    }

    /// How often clients are asked whether they are there.
    pub fn keepalive_interval(&self) -> Duration {
        Duration::from_secs(self.keepalive_interval_s)
    }

    /// How long a client that was asked may give no sign of life.
    pub fn keepalive_limit(&self) -> Duration {
        Duration::from_secs(self.keepalive_limit_s)
    }

    /// How long a client may leave a message of a reply where it is.
    pub fn write_stall_limit(&self) -> Duration {
        Duration::from_secs(self.write_stall_limit_s)
    }
}

/// The path of a setting, unless it is empty.
pub(super) fn given(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}

/// The cache of decoded pages, which all clients share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Budget in MiB of decoded samples. The memory taken is about a fifth more.
    pub size_mb: usize,
    /// A page that nobody used for so many seconds is dropped; 0 keeps it.
    pub idle_ttl_s: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            size_mb: 512,
            idle_ttl_s: 1800,
        }
    }
}

impl Cache {
    /// The budget in bytes.
    pub fn size_bytes(&self) -> usize {
        self.size_mb.saturating_mul(MIB)
    }

    /// How long an unused page is kept; `None` is for ever.
    pub fn idle_ttl(&self) -> Option<Duration> {
        (self.idle_ttl_s > 0).then(|| Duration::from_secs(self.idle_ttl_s))
    }
}

/// The processes that read and decode, and how they are kept alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// Worker processes that are always there; with 0, the server's own process
    /// reads.
    pub min: usize,
    /// Worker processes that there are at most, while requests wait; below the
    /// least number, that.
    pub max: usize,
    /// A worker more is started when requests have waited so many milliseconds.
    pub grow_delay_ms: u64,
    /// A worker beyond the least number is ended after so many seconds without
    /// work.
    pub shrink_idle_s: u64,
    /// Threads that read while no worker process can.
    pub in_process_threads: usize,
    /// Segments whose data file a worker keeps open.
    pub open_segments: usize,
    /// A worker without progress for so many seconds is killed.
    pub stall_limit_s: u64,
    /// A worker that is not ready so many seconds after its start is given up.
    pub spawn_limit_s: u64,
    /// Pause before the first restart, in milliseconds. It doubles from one
    /// failed restart to the next.
    pub restart_backoff_min_ms: u64,
    /// Longest pause before a restart, in milliseconds.
    pub restart_backoff_max_ms: u64,
    /// Restarts that one slot has within the window before it rests.
    pub restart_budget: usize,
    /// The window of the restart budget, in seconds.
    pub restart_window_s: u64,
    /// How long a slot rests that spent its budget, in seconds.
    pub rest_s: u64,
    /// Abandoned workers, stuck in the kernel, with which no other is started in the
    /// place of one that is lost.
    pub abandoned_limit: usize,
    /// Address space of a worker in MiB; what needs more costs it its life.
    pub memory_mb: u64,
    /// Whether workers are confined to reading.
    pub sandbox: SandboxMode,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            min: 2,
            max: 0,
            grow_delay_ms: 50,
            shrink_idle_s: 60,
            in_process_threads: 2,
            open_segments: 256,
            stall_limit_s: 30,
            spawn_limit_s: 5,
            restart_backoff_min_ms: 20,
            restart_backoff_max_ms: 2000,
            restart_budget: 10,
            restart_window_s: 10,
            rest_s: 30,
            abandoned_limit: 16,
            memory_mb: 2048,
            sandbox: SandboxMode::default(),
        }
    }
}

impl Workers {
    /// Worker processes that there are at most.
    pub fn most(&self) -> usize {
        if self.min == 0 {
            return 0;
        }
        self.min.max(self.max)
    }

    /// How long requests wait before a worker more is started.
    pub fn grow_delay(&self) -> Duration {
        Duration::from_millis(self.grow_delay_ms)
    }

    /// How long a worker beyond the least number may have nothing to do.
    pub fn shrink_idle(&self) -> Duration {
        Duration::from_secs(self.shrink_idle_s)
    }

    /// The longest time without progress.
    pub fn stall_limit(&self) -> Duration {
        Duration::from_secs(self.stall_limit_s)
    }

    /// The longest time from start to ready.
    pub fn spawn_limit(&self) -> Duration {
        Duration::from_secs(self.spawn_limit_s)
    }

    /// Pause before the first restart.
    pub fn restart_backoff_min(&self) -> Duration {
        Duration::from_millis(self.restart_backoff_min_ms)
    }

    /// Longest pause before a restart.
    pub fn restart_backoff_max(&self) -> Duration {
        Duration::from_millis(self.restart_backoff_max_ms)
    }

    /// The window of the restart budget.
    pub fn restart_window(&self) -> Duration {
        Duration::from_secs(self.restart_window_s)
    }

    /// Address space of a worker in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_mb.saturating_mul(MIB as u64)
    }

    /// How long a slot rests that spent its budget.
    pub fn rest(&self) -> Duration {
        Duration::from_secs(self.rest_s)
    }
}

/// Whether workers are confined to reading below the data roots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxMode {
    /// As far as the kernel can; what it cannot is told.
    #[default]
    BestEffort,
    /// Nothing is read but in a sandbox that is whole.
    Required,
    /// Not at all.
    Off,
}

/// The unit of reading and caching: a run of whole blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pages {
    /// Samples in one page, as nearly as whole blocks allow.
    pub target_samples: usize,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            target_samples: 4096,
        }
    }
}

/// Reading before anybody asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prefetch {
    /// Segments of the legacy grid that are read ahead of a client.
    pub ahead_segments: usize,
    /// Time windows, as long as the last one asked for, that are read ahead.
    pub ahead_windows: usize,
    /// The same, behind.
    pub behind_windows: usize,
    /// Most that one prediction may decode, in MiB; 0 predicts nothing.
    pub max_mb: usize,
}

impl Default for Prefetch {
    fn default() -> Self {
        Self {
            ahead_segments: 3,
            ahead_windows: 1,
            behind_windows: 1,
            max_mb: 64,
        }
    }
}

impl Prefetch {
    /// Most that one prediction may decode, in bytes.
    pub fn max_bytes(&self) -> usize {
        self.max_mb.saturating_mul(MIB)
    }
}

/// What the server refuses to exceed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Recordings open at a time.
    pub open_recordings: usize,
    /// Messages that wait for one actor.
    pub mailbox: usize,
    /// Pages queued or in flight; a request that needs more is refused.
    pub queued_pages: usize,
    /// Requests that wait for pages, counted for each page, or for one opening.
    pub waiters: usize,
    /// How far one stream works ahead of its reader, in MiB.
    pub read_ahead_mb: usize,
    /// Decoded samples that all reads hold beside the cache, in MiB.
    pub in_flight_mb: usize,
    /// Of these, what the reads of one client hold, in MiB.
    pub client_mb: usize,
    /// Messages that answer a small request as a whole, in MiB.
    pub large_messages_mb: usize,
    /// Samples of one request, as they are sent, in MiB.
    pub request_mb: u64,
    /// Points that all reads under way are reduced to, in MiB.
    pub points_mb: usize,
    /// What is kept of envelopes for the next, in MiB; 0 keeps nothing.
    pub pyramid_mb: usize,
    /// What is kept of them in the cache folder, in MiB.
    pub pyramid_disk_mb: u64,
    /// Length of one request as it comes, in KiB.
    pub request_message_kb: usize,
    /// Indices of all open recordings, in MiB.
    pub metadata_mb: usize,
    /// Channels in one read.
    pub channels_per_read: usize,
    /// Sessions that clients with an id have, each on one recording.
    pub client_sessions: usize,
    /// Looks for recordings below the data roots at a time.
    pub listings: usize,
    /// Names that one look for recordings looks at.
    pub listing_entries: usize,
    /// Connections of clients at a time.
    pub connections: usize,
    /// Calls under way at a time, in all connections.
    pub streams: usize,
    /// Calls under way at a time in one connection.
    pub streams_per_connection: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            open_recordings: 1000,
            mailbox: 1024,
            queued_pages: 65536,
            waiters: 262_144,
            read_ahead_mb: 8,
            in_flight_mb: 32,
            client_mb: 16,
            large_messages_mb: 16,
            request_mb: 16384,
            points_mb: 64,
            pyramid_mb: 64,
            pyramid_disk_mb: 1024,
            request_message_kb: 1024,
            metadata_mb: 4096,
            channels_per_read: 4096,
            client_sessions: 1000,
            listings: 4,
            listing_entries: 100_000,
            connections: 4096,
            streams: 4096,
            streams_per_connection: 256,
        }
    }
}

impl Limits {
    /// How far one stream works ahead of its reader, in bytes.
    pub fn read_ahead_bytes(&self) -> usize {
        self.read_ahead_mb.saturating_mul(MIB)
    }

    /// Decoded samples that all reads hold beside the cache, in bytes.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_mb.saturating_mul(MIB)
    }

    /// What the reads of one client hold of these, in bytes.
    pub fn client_bytes(&self) -> usize {
        self.client_mb.saturating_mul(MIB)
    }

    /// Messages that answer a small request as a whole, in bytes.
    pub fn large_messages_bytes(&self) -> usize {
        self.large_messages_mb.saturating_mul(MIB)
    }

    /// Samples of one request, in bytes.
    pub fn request_bytes(&self) -> u64 {
        self.request_mb.saturating_mul(MIB as u64)
    }

    /// What is kept of envelopes for the next, in bytes.
    pub fn pyramid_bytes(&self) -> usize {
        self.pyramid_mb.saturating_mul(MIB)
    }

    /// What is kept of them in the cache folder, in bytes.
    pub fn pyramid_disk_bytes(&self) -> u64 {
        self.pyramid_disk_mb.saturating_mul(MIB as u64)
    }

    /// Length of one request as it comes, in bytes.
    pub fn request_message_bytes(&self) -> usize {
        self.request_message_kb.saturating_mul(1024)
    }

    /// Indices of all open recordings, in bytes.
    pub fn metadata_bytes(&self) -> usize {
        self.metadata_mb.saturating_mul(MIB)
    }
}

/// From a client's path to one of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// Paths of clients are looked up below this folder; empty is off.
    pub host_root: PathBuf,
    /// Folders below which recordings may be read; none is everywhere, or the host root.
    pub data_roots: Vec<DataRoot>,
    /// What envelopes leave for the next run of the server is kept in this folder; empty
    /// is off.
    pub cache_folder: PathBuf,
}

impl Paths {
    /// The folder below which paths of clients are looked up, if any.
    pub fn host_root(&self) -> Option<&Path> {
        given(&self.host_root)
    }

    /// The folder for what outlasts the server, if any.
    pub fn cache_folder(&self) -> Option<&Path> {
        (!self.cache_folder.as_os_str().is_empty()).then_some(self.cache_folder.as_path())
    }

    /// The folders below which workers may read; none is everywhere.
    pub fn read_roots(&self) -> Vec<PathBuf> {
        match self.host_root() {
            Some(root) if self.data_roots.is_empty() => vec![root.into()],
            _ => {
                let roots = self.data_roots.iter();
                roots.map(|root| root.path().to_path_buf()).collect()
            }
        }
    }
}

/// Recordings that are still written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Live {
    /// How old what is known of a recording's files may be when it is read, in
    /// milliseconds; 0 looks at them for every read.
    pub staleness_ms: u64,
    /// A recording that nobody keeps open is closed when no call used it for so many
    /// seconds.
    pub passing_s: u64,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            staleness_ms: 1000,
            passing_s: 300,
        }
    }
}

impl Live {
    /// How long a recording that nobody keeps open stays open unused.
    pub fn passing(&self) -> Duration {
        Duration::from_secs(self.passing_s)
    }

    /// How old what is known of a recording's files may be.
    pub fn staleness(&self) -> Duration {
        Duration::from_millis(self.staleness_ms)
    }
}

/// Whether the server can do its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// How often a reader is asked to decode a block, in seconds.
    pub probe_interval_s: u64,
    /// A server whose readers do not answer for so many seconds is not ready.
    pub probe_limit_s: u64,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            probe_interval_s: 5,
            probe_limit_s: 3,
        }
    }
}

impl Health {
    /// How often a reader is asked to decode a block.
    pub fn probe_interval(&self) -> Duration {
        Duration::from_secs(self.probe_interval_s)
    }

    /// How long the readers may take to answer.
    pub fn probe_limit(&self) -> Duration {
        Duration::from_secs(self.probe_limit_s)
    }
}

/// What operators ask the server, over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port, as text; empty is off, and port 0 takes a free one.
    pub listen: String,
}

impl Admin {
    /// Where to listen, if anywhere.
    ///
    /// # Errors
    /// Where the text is no address.
    pub fn listen(&self) -> Result<Option<SocketAddr>, AddrParseError> {
        match self.listen.as_str() {
            "" => Ok(None),
            address => address.parse().map(Some),
        }
    }
}

/// The services of the existing clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Legacy {
    /// What a read over damaged blocks is answered with.
    pub on_damage: OnDamage,
    /// A session that its client did not use for so many seconds is ended; 0 keeps
    /// it.
    pub session_ttl_s: u64,
    /// Signals are reduced to the rate that a client wants in stretches of so many
    /// milliseconds, counted from the start of the channel.
    pub tile_ms: u64,
    /// Rounds these to whole blocks of the channel.
    pub respect_mef_blocks: bool,
}

impl Default for Legacy {
    fn default() -> Self {
        Self {
            on_damage: OnDamage::default(),
            session_ttl_s: 1800,
            tile_ms: 60_000,
            respect_mef_blocks: false,
        }
    }
}

impl Legacy {
    /// How long a session lasts that its client does not use; `None` is for ever.
    pub fn session_idle_limit(&self) -> Option<Duration> {
        (self.session_ttl_s > 0).then(|| Duration::from_secs(self.session_ttl_s))
    }

    /// The stretches that signals are reduced in.
    pub fn tile(&self) -> Duration {
        Duration::from_millis(self.tile_ms)
    }
}

/// What a read over damage is answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnDamage {
    /// An error that names the damage.
    #[default]
    Fail,
    /// No samples where the damage is, which is told beside them.
    Mask,
}

/// The log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The form of a record.
    pub format: LogFormat,
    /// The least important records that are written.
    pub level: LogLevel,
}

/// The form of a log record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line to be read.
    #[default]
    Human,
    /// A JSON object to be collected.
    Json,
}

/// The importance of a log record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Somebody has to act.
    Error,
    /// Something is wrong, and the server copes.
    Warn,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What helps to understand one request.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}
