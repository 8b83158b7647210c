//! What the server may do, and how much it may take.

use std::collections::BTreeMap;

use mef3_server::config::Config;
use serde_json::{Value, json};

use super::files::{
    all_under, document, documents, instructions, list, object, of_unit, string, text,
};
use super::{COMPOSE, CONTAINERFILE, composed, envoy, pod, variables};

fn settings(variables: &BTreeMap<String, String>) -> Config {
    let variables = variables.clone().into_iter();
    Config::load(None, variables).unwrap().config
}

/// Seconds of a duration such as `30s`.
fn seconds(text: &str) -> u64 {
    text.strip_suffix('s')
        .and_then(|it| it.parse().ok())
        .unwrap()
}

#[test]
fn nobody_is_root_and_little_can_be_done() {
    let (container, pod) = pod();
    let made = text(CONTAINERFILE);
    let composed = composed();
    let users = [
        instructions(&made, "USER").pop().unwrap().to_owned(),
        string(&composed["user"]).to_owned(),
        pod["securityContext"]["runAsUser"].to_string(),
        pod["securityContext"]["runAsGroup"].to_string(),
    ];
    for user in users {
        for part in user.split(':') {
            assert_ne!(part.parse::<u32>().unwrap(), 0, "{user}");
        }
    }
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    assert_eq!(
        container["securityContext"],
        json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        })
    );
    let services = document(COMPOSE)["services"].clone();
    for (name, service) in services.as_object().unwrap() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert_eq!(
            service["security_opt"],
            json!(["no-new-privileges:true"]),
            "{name}"
        );
        assert!(
            service["pids_limit"].is_u64() && service["mem_limit"].is_string(),
            "{name}"
        );
    }

    // What has to be writable is, and the recordings are not.
    assert!(instructions(&made, "ENV").contains(&"TMPDIR=/tmp"));
    assert!(string(&composed["tmpfs"][0]).starts_with("/tmp:"));
    let mounts = list(&container["volumeMounts"]);
    assert!(
        mounts
            .iter()
            .any(|it| it["mountPath"] == "/tmp" && it["readOnly"].is_null())
    );
    let roots = |number: usize| variables()[number].1["MEF3_SERVER_PATHS_DATA_ROOTS"].clone();
    assert!(
        mounts
            .iter()
            .any(|it| it["mountPath"] == roots(1) && it["readOnly"] == true)
    );
    let volume = &composed["volumes"][0];
    assert_eq!(
        (&volume["target"], &volume["read_only"]),
        (&json!(roots(0)), &json!(true))
    );
}

#[test]
fn images_are_of_a_version() {
    let made = text(CONTAINERFILE);
    let from = instructions(&made, "FROM");
    let mut images: Vec<String> = from
        .iter()
        .map(|it| it.split(' ').next().unwrap().to_owned())
        .filter(|it| it != "scratch")
        .collect();
    let rust = images[0].rsplit_once(':').unwrap().1;
    let version = |text: &str| -> Vec<u32> {
        text.split(['.', '-'])
            .map_while(|it| it.parse().ok())
            .collect()
    };
    assert!(
        version(rust) >= version(env!("CARGO_PKG_RUST_VERSION")),
        "{rust}"
    );
    let yaml = [
        COMPOSE,
        "config/kubernetes/mef3-server.yaml",
        "config/kubernetes/envoy.yaml",
    ];
    for document in yaml.iter().flat_map(|file| documents(&text(file))) {
        images.extend(
            all_under(&document, "image")
                .into_iter()
                .map(|it| string(it).to_owned()),
        );
    }
    assert_eq!(images.len(), 5, "{images:?}");
    for image in images {
        let tag = image
            .rsplit_once(':')
            .map(|(_, tag)| tag)
            .unwrap_or_default();
        let tag = tag.trim_start_matches('v');
        let parts = version(tag);
        assert_eq!(parts.len(), 3, "{image} has no whole version");
        if image.contains("mef3-server") {
            assert_eq!(tag, env!("CARGO_PKG_VERSION"));
        }
    }
}

#[test]
fn replies_under_way_have_their_time_at_the_end() {
    let [(_, composed_variables), (_, variables)] = variables();
    // The server takes a second beyond the grace, and some more on a busy machine.
    let needed = |config: &Config| config.server.shutdown_grace_s + 5;
    let grace = seconds(string(&composed()["stop_grace_period"]));
    assert!(grace >= needed(&settings(&composed_variables)));

    let (container, pod) = pod();
    let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        .as_u64()
        .unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace >= pause + needed(&settings(&variables)));

    let unit = text("config/mef3-server.service");
    let grace = seconds(of_unit(&unit, "TimeoutStopSec")[0]);
    assert!(grace >= needed(&Config::default()));
}

/// Bytes of a size as Kubernetes (`512Mi`) or compose (`512m`) write it.
fn bytes(text: &str) -> u64 {
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "b" => 0,
        "Ki" | "k" => 10,
        "Mi" | "m" => 20,
        "Gi" | "g" => 30,
        unit => panic!("{unit} in {text}"),
    };
    digits.parse::<u64>().unwrap() << shift
}

const MIB: u64 = 1 << 20;

#[test]
fn sizes_have_their_units() {
    assert_eq!(bytes("512m"), 512 * MIB);
    assert_eq!(bytes("512m"), bytes("512Mi"));
    assert_eq!(bytes("2g"), bytes("2Gi"));
    assert_eq!(bytes("2Gi"), 2048 * MIB);
    assert_eq!(bytes("3k"), bytes("3072"));
}

/// Most that the server and its workers may take by their settings, in bytes.
fn needed(config: &Config) -> u64 {
    let (limits, workers) = (&config.limits, &config.workers);
    // A cache takes a fifth more than its budget.
    let cache = config.cache.size_bytes() * 6 / 5;
    let reads = [
        limits.in_flight_mb,
        limits.large_messages_mb,
        limits.points_mb,
        limits.pyramid_mb,
    ];
    let reads = reads.iter().sum::<usize>() << 20;
    // Of a client that is slow to take them.
    let messages = limits.streams * 3 * (128 << 10);
    let server = cache + limits.metadata_bytes() + reads + messages;
    let workers = workers.most() as u64 * workers.memory_bytes();
    let rest = 256 * MIB;
    server as u64 + workers + rest
}

#[test]
fn memory_holds_what_the_server_is_told_to_keep() {
    let [(_, composed_variables), (_, variables)] = variables();
    let composed = bytes(string(&composed()["mem_limit"]));
    let (container, _) = pod();
    let limit = bytes(string(&container["resources"]["limits"]["memory"]));
    for (limit, variables) in [(composed, composed_variables), (limit, variables)] {
        let needed = needed(&settings(&variables));
        let (limit, needed) = (limit / MIB, needed / MIB);
        assert!(limit >= needed, "{limit} MiB, {needed} MiB are needed");
    }
}

/// The only number under a key.
fn number(value: &Value, key: &str) -> u64 {
    let [number] = all_under(value, key)[..] else {
        panic!("not one {key}");
    };
    number.as_u64().unwrap()
}

#[test]
fn memory_holds_what_envoy_keeps_for_slow_clients() {
    let envoy = envoy();
    let listener = &envoy["static_resources"]["listeners"][0];
    let cluster = &envoy["static_resources"]["clusters"][0];
    for part in [listener, cluster] {
        let stream = number(part, "initial_stream_window_size");
        let connection = number(part, "initial_connection_window_size");
        // Less than HTTP/2 begins with cannot be set.
        assert!((65_535..=MIB).contains(&stream), "{stream}");
        assert!((stream..=4 * MIB).contains(&connection), "{connection}");
    }
    let buffers = [listener, cluster].map(|it| number(it, "per_connection_buffer_limit_bytes"));
    let connection = number(cluster, "initial_connection_window_size") + buffers[0] + buffers[1];
    let connections = number(&envoy, "max_active_downstream_connections");
    let heap = number(&envoy, "max_heap_size_bytes");
    assert!(connections * connection <= heap);
    let pod = object("Deployment", "mef3-envoy")["spec"]["template"]["spec"].clone();
    let limit = bytes(string(
        &pod["containers"][0]["resources"]["limits"]["memory"],
    ));
    assert!(limit >= heap + 128 * MIB);
}

#[test]
fn envoy_lets_through_what_the_servers_take() {
    let [_, (_, variables)] = variables();
    let limits = settings(&variables).limits;
    let envoy = envoy();
    let listener = &envoy["static_resources"]["listeners"][0];
    let streams = number(listener, "max_concurrent_streams");
    assert_eq!(streams, u64::from(limits.streams_per_connection));
    let servers = object("Deployment", "mef3-server")["spec"].clone();
    let surge = &servers["strategy"]["rollingUpdate"]["maxSurge"];
    let servers = servers["replicas"].as_u64().unwrap() + surge.as_u64().unwrap();
    let breakers = all_under(&envoy, "circuit_breakers")[0];
    for key in ["max_requests", "max_pending_requests"] {
        assert!(number(breakers, key) >= servers * limits.streams as u64);
    }
    // Each client has a connection to each server, and all may be at one server.
    assert_eq!(
        all_under(&envoy, "connection_pool_per_downstream_connection"),
        [&json!(true)]
    );
    let clients = number(&envoy, "max_active_downstream_connections");
    assert!(number(breakers, "max_connections") >= clients * servers);
    let envoys = object("Deployment", "mef3-envoy")["spec"]["replicas"]
        .as_u64()
        .unwrap();
    assert!(limits.connections as u64 >= clients * envoys);
    assert_eq!(number(&envoy, "num_retries"), 1);
    assert!(breakers["thresholds"][0]["retry_budget"].is_object());
}

#[test]
fn envoy_has_its_time_at_the_end() {
    let pod = object("Deployment", "mef3-envoy")["spec"]["template"]["spec"].clone();
    let envoy_container = &pod["containers"][0];
    let hook = list(&envoy_container["lifecycle"]["preStop"]["exec"]["command"]);
    let script = string(&hook[2]);
    let pauses: Vec<u64> = instructions(script, "sleep")
        .iter()
        .map(|it| it.parse().unwrap())
        .collect();
    let command: Vec<&str> = list(&envoy_container["command"])
        .iter()
        .map(string)
        .collect();
    let drain = command.iter().position(|it| *it == "--drain-time-s");
    let drain: u64 = command[drain.unwrap() + 1].parse().unwrap();
    let [heard, left] = pauses[..] else {
        panic!("{pauses:?}");
    };
    assert!(heard > 0 && left > drain);
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > heard + left);
    // It asks at the admin port.
    let admin = &envoy()["admin"]["address"]["socket_address"];
    let address = format!(
        "/dev/tcp/{}/{}",
        string(&admin["address"]),
        admin["port_value"]
    );
    assert!(script.contains(&address), "{address}");
}
