//! Tests of the merge as a whole; every expectation is one of the documented
//! rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use toml::{Table, Value};

use super::*;

const DOCUMENTED: &str = include_str!("../../config/mef3-server.toml");

fn file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

fn load(file: Option<&Path>, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let variables = variables.iter();
    Config::load(
        file,
        variables.map(|(name, text)| (name.to_string(), text.to_string())),
    )
}

fn with_variables(variables: &[(&str, &str)]) -> Config {
    let loaded = load(None, variables).unwrap();
    assert_eq!(loaded.notices, [], "{variables:?}");
    loaded.config
}

fn refusal(variables: &[(&str, &str)]) -> String {
    load(None, variables).unwrap_err().to_string()
}

/// All `section.key` of a document.
fn keys(table: &Table) -> BTreeSet<String> {
    let sections = table.iter();
    sections
        .flat_map(|(section, content)| {
            let keys = content.as_table().unwrap().keys();
            keys.map(move |key| format!("{section}.{key}"))
        })
        .collect()
}

fn variable_of(key: &str) -> String {
    format!("MEF3_SERVER_{}", key.to_uppercase().replace('.', "_"))
}

#[test]
fn nothing_given_is_the_defaults() {
    let loaded = load(None, &[("HOME", "/home/someone"), ("PATH", "/bin")]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.notices, []);
    loaded.config.validate().unwrap();
}

#[test]
fn the_documented_file_is_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/mef3-server.toml");
    assert_eq!(load(Some(&path), &[]).unwrap().config, Config::default());
    assert_eq!(
        toml::from_str::<Config>(DOCUMENTED).unwrap(),
        Config::default()
    );
}

#[test]
fn the_documented_file_has_every_key_and_no_other() {
    let documented: Table = toml::from_str(DOCUMENTED).unwrap();
    let existing = Table::try_from(Config::default()).unwrap();
    assert_eq!(keys(&documented), keys(&existing));
}

#[test]
fn every_key_has_a_variable_of_its_own() {
    let defaults = Table::try_from(Config::default()).unwrap();
    let mut seen = BTreeSet::new();
    for key in keys(&defaults) {
        let name = variable_of(&key);
        assert!(seen.insert(name.clone()), "{name} is ambiguous");
        let (section, field) = key.split_once('.').unwrap();
        let text = match &defaults[section][field] {
            // 100 of them are all.
            Value::Integer(number) if key == "trace.sample_percent" => (number - 1).to_string(),
            Value::Integer(number) => (number + 1).to_string(),
            Value::Boolean(set) => (!set).to_string(),
            _ => match key.as_str() {
                "server.listen" => "[::1]:7".into(),
                "admin.listen" => "[::1]:8".into(),
                "server.unix_socket" => "/run/mef3.sock".into(),
                "server.web_origins" => "https://a.example,http://localhost:5173".into(),
                "tls.certificate" | "tls.key" | "tls.client_ca" => "/tls/file.pem".into(),
                "auth.tokens" => "/tokens.toml".into(),
                "paths.host_root" => "/host_root".into(),
                "paths.data_roots" => "/data:/more".into(),
                "paths.cache_folder" => "/cache".into(),
                "legacy.on_damage" => "mask".into(),
                "workers.sandbox" => "required".into(),
                "log.format" => "json".into(),
                "log.level" => "trace".into(),
                "trace.otlp_endpoint" => "http://127.0.0.1:4317".into(),
                other => panic!("no text for {other}"),
            },
        };
        let changed = Table::try_from(with_variables(&[(&name, &text)])).unwrap();
        for other in keys(&defaults) {
            let (section, field) = other.split_once('.').unwrap();
            let is_changed = changed[section][field] != defaults[section][field];
            assert_eq!(is_changed, other == key, "{name} and {other}");
        }
    }
}

#[test]
fn a_variable_is_over_a_legacy_one_over_the_file_over_the_default() {
    let file = file("[cache]\nsize_mb = 10\nidle_ttl_s = 11\n[prefetch]\nahead_segments = 12\n");
    let loaded = load(
        Some(file.path()),
        &[
            ("MEF3_SERVER_CACHE_SIZE_MB", "30"),
            ("TILE_CACHE_MB", "20"),
            ("CACHE_TTL_S", "21"),
        ],
    )
    .unwrap();
    assert_eq!(loaded.config.cache.size_mb, 30);
    assert_eq!(loaded.config.cache.idle_ttl_s, 21);
    assert_eq!(loaded.config.prefetch.ahead_segments, 12);
    assert_eq!(loaded.config.prefetch.ahead_windows, 1);
    let notices: Vec<_> = loaded.notices.iter().map(Notice::to_string).collect();
    assert_eq!(
        notices,
        ["variable TILE_CACHE_MB has no effect: MEF3_SERVER_CACHE_SIZE_MB is set and wins"]
    );
}

#[test]
fn legacy_names_of_settings() {
    let config = with_variables(&[
        ("PORT", "50052"),
        ("N_PREFETCH", "5"),
        ("MAX_WORKERS", "7"),
        ("TILE_CACHE_MB", "1024"),
        ("CACHE_TTL_S", "0.25"),
        ("PREFETCH_AHEAD_WINDOWS", "2"),
        ("PREFETCH_BEHIND_WINDOWS", "0"),
    ]);
    let mut expected = Config::default();
    expected.server.listen = "0.0.0.0:50052".parse().unwrap();
    expected.prefetch.ahead_segments = 5;
    expected.workers.in_process_threads = 7;
    expected.cache.size_mb = 1024;
    expected.cache.idle_ttl_s = 1;
    expected.prefetch.ahead_windows = 2;
    expected.prefetch.behind_windows = 0;
    assert_eq!(config, expected);
}

#[test]
fn legacy_lifetimes_are_rounded_up_to_seconds() {
    for (text, seconds) in [
        ("0", 0),
        ("0.0", 0),
        ("1800.0", 1800),
        ("1.0001", 2),
        ("1e3", 1000),
    ] {
        let config = with_variables(&[("CACHE_TTL_S", text)]);
        assert_eq!(config.cache.idle_ttl_s, seconds, "{text}");
    }
}

#[test]
fn legacy_names_of_the_number_of_processes() {
    let number = ("N_PROCESS_WORKERS", "3");
    let (on, off) = (("USE_PROCESS_POOL", "True"), ("USE_PROCESS_POOL", "off"));
    let readers = ("READER_PROCESSES", "6");
    let own = ("MEF3_SERVER_WORKERS_MIN", "9");
    for (variables, processes, without_effect) in [
        (&[number][..], 3, &[][..]),
        (&[("N_PROCESS_WORKERS", "0")], 0, &[]),
        (&[on], 2, &[on.0]),
        (&[off], 0, &[]),
        (&[readers], 6, &[]),
        (&[number, on], 3, &[on.0]),
        (&[number, off], 3, &[off.0]),
        (&[number, readers], 3, &[readers.0]),
        (&[off, readers], 0, &[readers.0]),
        (&[on, readers], 6, &[on.0]),
        (&[number, off, readers], 3, &[off.0, readers.0]),
        (&[own, number], 9, &[number.0]),
        (&[own, off], 9, &[off.0]),
        (&[own, readers], 9, &[readers.0]),
    ] {
        let loaded = load(None, variables).unwrap();
        assert_eq!(loaded.config.workers.min, processes, "{variables:?}");
        let notices: Vec<_> = loaded
            .notices
            .iter()
            .map(|notice| &notice.variable)
            .collect();
        assert_eq!(notices, without_effect, "{variables:?}");
    }
}

#[test]
fn legacy_names_without_effect_are_noticed() {
    for (name, text) in [
        ("CACHE_CAPACITY_MULTIPLIER", "3"),
        ("PREFETCH_PROCESSES", "1"),
        ("MIN_PARALLEL_TILES", "2"),
    ] {
        let loaded = load(None, &[(name, text)]).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert_eq!(loaded.notices.len(), 1);
        assert_eq!(loaded.notices[0].variable, name);
        assert!(!loaded.notices[0].reason.is_empty());
        let message = refusal(&[(name, "many")]);
        assert!(
            message.contains(name) && message.contains("\"many\""),
            "{message}"
        );
    }
}

#[test]
fn bad_legacy_values_name_their_variable() {
    for (name, text) in [
        ("PORT", "65536"),
        ("PORT", "http"),
        ("PORT", ""),
        ("N_PREFETCH", "-1"),
        ("N_PREFETCH", "2.5"),
        ("N_PROCESS_WORKERS", "two"),
        ("N_PROCESS_WORKERS", "5000"),
        ("USE_PROCESS_POOL", "maybe"),
        ("READER_PROCESSES", "-2"),
        ("MAX_WORKERS", "0"),
        ("TILE_CACHE_MB", "0"),
        ("CACHE_TTL_S", "-0.5"),
        ("CACHE_TTL_S", "nan"),
        ("CACHE_TTL_S", "inf"),
        ("CACHE_TTL_S", "1e300"),
        ("PREFETCH_AHEAD_WINDOWS", "x"),
        ("PREFETCH_BEHIND_WINDOWS", "99999999999999999999"),
    ] {
        let error = load(None, &[(name, text)]).unwrap_err();
        let ConfigError::BadValue { origin, .. } = error else {
            panic!("{name}={text}: {error}");
        };
        assert_eq!(origin, Origin::Variable(name.into()), "{name}={text}");
    }
}

#[test]
fn a_bad_value_is_refused_also_where_another_would_win() {
    let message = refusal(&[("N_PROCESS_WORKERS", "1"), ("READER_PROCESSES", "x")]);
    assert_eq!(
        message,
        "variable READER_PROCESSES: bad value for workers.min: \"x\" is not a whole number"
    );
}

#[test]
fn unknown_variables_of_ours_are_refused() {
    for name in ["MEF3_SERVER_CACHE_SIZE", "MEF3_SERVER_", "MEF3_SERVER_PORT"] {
        let message = refusal(&[(name, "1")]);
        assert!(
            message.starts_with(&format!("variable {name}: unknown key")),
            "{message}"
        );
    }
}

#[test]
fn addresses_that_an_orchestrator_writes_are_not_ours() {
    let config = with_variables(&[
        ("MEF3_SERVER_SERVICE_HOST", "10.0.0.1"),
        ("MEF3_SERVER_SERVICE_PORT", "50051"),
        ("MEF3_SERVER_SERVICE_PORT_GRPC", "50051"),
        ("MEF3_SERVER_PORT", "tcp://10.0.0.1:50051"),
        ("MEF3_SERVER_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
        ("MEF3_SERVER_PORT_50051_TCP_ADDR", "10.0.0.1"),
    ]);
    assert_eq!(config, Config::default());
}

#[test]
fn bad_variables_name_key_and_variable() {
    for (key, text) in [
        ("server.listen", "localhost"),
        ("server.listen", "127.0.0.1"),
        ("server.listen", ":50051"),
        ("server.shutdown_grace_s", "-1"),
        ("server.handshake_limit_s", "0"),
        ("server.request_limit_s", "0"),
        ("server.keepalive_interval_s", "0"),
        ("server.keepalive_limit_s", "10000"),
        ("server.write_stall_limit_s", "0"),
        ("cache.size_mb", "0"),
        ("cache.size_mb", "999999999999"),
        ("cache.size_mb", "many"),
        ("cache.size_mb", "1.5"),
        ("cache.idle_ttl_s", "1800000000"),
        ("workers.min", "100000"),
        ("workers.max", "100000"),
        ("workers.grow_delay_ms", "0"),
        ("workers.shrink_idle_s", "0"),
        ("workers.in_process_threads", "0"),
        ("workers.open_segments", "0"),
        ("workers.stall_limit_s", "0"),
        ("workers.spawn_limit_s", "0"),
        ("workers.restart_backoff_min_ms", "0"),
        ("workers.restart_backoff_max_ms", "0"),
        ("workers.restart_budget", "0"),
        ("workers.restart_window_s", "0"),
        ("workers.rest_s", "0"),
        ("workers.abandoned_limit", "0"),
        ("workers.memory_mb", "255"),
        ("workers.sandbox", "maybe"),
        ("paths.data_roots", "/data:relative"),
        ("paths.data_roots", "/data:b/c=/more"),
        ("paths.data_roots", "/data:/more/data"),
        ("pages.target_samples", "0"),
        ("prefetch.ahead_segments", "1000000"),
        ("limits.listings", "0"),
        ("limits.listing_entries", "0"),
        ("limits.open_recordings", "0"),
        ("limits.mailbox", "0"),
        ("limits.queued_pages", "0"),
        ("limits.waiters", "0"),
        ("limits.read_ahead_mb", "0"),
        ("limits.in_flight_mb", "0"),
        ("limits.client_mb", "0"),
        ("limits.large_messages_mb", "-1"),
        ("limits.request_mb", "0"),
        ("limits.request_message_kb", "0"),
        ("limits.metadata_mb", "0"),
        ("limits.channels_per_read", "0"),
        ("limits.connections", "0"),
        ("limits.streams", "0"),
        ("limits.streams_per_connection", "0"),
        ("live.staleness_ms", "86400000"),
        ("health.probe_interval_s", "0"),
        ("health.probe_limit_s", "0"),
        ("admin.listen", "9464"),
        ("legacy.on_damage", "ignore"),
        ("server.unix_socket", "mef3.sock"),
        ("server.insecure", "maybe"),
        ("server.web_origins", "*"),
        ("server.web_origins", "https://a.example:https://b.example"),
        ("server.web_origins", "https://a.example, b.example"),
        ("tls.certificate", "cert.pem"),
        ("tls.key", "key.pem"),
        ("tls.client_ca", "ca.pem"),
        ("auth.tokens", "tokens.toml"),
        ("paths.host_root", "host_root"),
        ("paths.cache_folder", "cache"),
        ("limits.pyramid_disk_mb", "0"),
        ("log.format", "xml"),
        ("log.level", "loud"),
        ("log.level", "\u{FFFD}"),
        ("trace.otlp_endpoint", "collector:4317"),
        ("trace.otlp_endpoint", "https://collector:4317"),
        ("trace.sample_percent", "101"),
    ] {
        let name = variable_of(key);
        let error = load(None, &[(&name, text)]).unwrap_err();
        let ConfigError::BadValue {
            key: named, origin, ..
        } = error
        else {
            panic!("{name}={text}: {error}");
        };
        assert_eq!(named, key);
        assert_eq!(origin, Origin::Variable(name));
    }
}

#[test]
fn faults_of_a_file_name_key_and_file() {
    for (text, fault) in [
        (
            "[cache]\nsize = 3\n",
            ": unknown key cache.size, known are admin.listen, auth.tokens",
        ),
        (
            "[cash]\nsize_mb = 3\n",
            ": unknown key cash, known are admin, auth, cache, health, legacy",
        ),
        (
            "size_mb = 3\n",
            ": unknown key size_mb, known are admin, auth, cache",
        ),
        (
            "cache = 3\n",
            ": bad value for cache: it is a section, not a value",
        ),
        (
            "[cache]\nsize_mb = \"3\"\n",
            ": bad value for cache.size_mb: invalid type: string",
        ),
        (
            "[cache]\nsize_mb = -3\n",
            ": bad value for cache.size_mb: invalid value: integer `-3`",
        ),
        (
            "[cache]\nsize_mb = 0\n",
            ": bad value for cache.size_mb: 0 is not between 1 and",
        ),
        (
            "[server]\nlisten = \"here\"\n",
            ": bad value for server.listen: invalid socket address",
        ),
        ("[log]\nlevel = 3\n", ": bad value for log.level: "),
        ("[cache]\nsize_mb = = 3\n", ", line 2: "),
        (
            "[cache]\nsize_mb = 3\nsize_mb = 4\n",
            ", line 3: duplicate key",
        ),
    ] {
        let file = file(text);
        let message = load(Some(file.path()), &[]).unwrap_err().to_string();
        let expected = format!("{}{fault}", file.path().display());
        assert!(message.starts_with(&expected), "{message:?} for {text:?}");
        assert!(!message.contains('\n'), "{message:?}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let path = PathBuf::from("/nowhere/mef3-server.toml");
    let error = load(Some(&path), &[]).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }));
    assert!(error.to_string().starts_with("/nowhere/mef3-server.toml: "));
}

#[test]
fn the_least_pause_may_not_exceed_the_most() {
    // Each value alone is fine, and the layers may come in any order.
    let mut config = with_variables(&[("MEF3_SERVER_WORKERS_RESTART_BACKOFF_MIN_MS", "5000")]);
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "settings: bad value for workers.restart_backoff_min_ms: \
         5000 is more than workers.restart_backoff_max_ms (2000)"
    );
    config.workers.restart_backoff_max_ms = 5000;
    config.validate().unwrap();
}

#[test]
fn flags_are_judged_by_validate() {
    let mut config = Config::default();
    config.workers.open_segments = 0;
    let ConfigError::BadValue { key, origin, .. } = config.validate().unwrap_err() else {
        panic!("another error");
    };
    assert_eq!(key, "workers.open_segments");
    assert_eq!(origin, Origin::Settings);
}

#[test]
fn zero_switches_off() {
    let mut config = Config::default();
    config.cache.idle_ttl_s = 0;
    config.workers.min = 0;
    config.server.shutdown_grace_s = 0;
    config.prefetch.max_mb = 0;
    config.validate().unwrap();
    assert_eq!(config.cache.idle_ttl(), None);
    assert_eq!(config.paths.host_root(), None);
}

#[test]
fn numbers_may_stand_among_blanks() {
    assert_eq!(
        with_variables(&[("TILE_CACHE_MB", " 64 ")]).cache.size_mb,
        64
    );
}

#[test]
fn the_process_environment_loads() {
    assert!(process_environment().any(|(name, _)| name == "PATH"));
}

#[test]
fn spans_are_sent_by_programs_that_can() {
    let endpoint = ("MEF3_SERVER_TRACE_OTLP_ENDPOINT", "http://127.0.0.1:4317");
    let config = with_variables(&[endpoint]);
    config.validate().unwrap();
    let checked = config.check_built().map_err(|error| error.to_string());
    match cfg!(feature = "otlp") {
        true => checked.unwrap(),
        false => {
            let text = checked.unwrap_err();
            for part in ["trace.otlp_endpoint", "--features otlp"] {
                assert!(text.contains(part), "no {part} in {text}");
            }
        }
    }
    Config::default().check_built().unwrap();
}
