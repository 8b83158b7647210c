//! The files that a deployment begins with: what they say of the server is so.

mod common;

#[path = "deploy_files/confines.rs"]
mod confines;
#[path = "deploy_files/files.rs"]
mod files;
#[path = "deploy_files/routing.rs"]
mod routing;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use common::process::{LIMIT, Launch, Server, until};
use files::{all_under, document, documents, instructions, list, object, of_unit, string, text};
use mef3_server::config::Config;
use rustix::process::Signal;
use serde_json::Value;

const CONTAINERFILE: &str = "config/container/Containerfile";
const COMPOSE: &str = "config/container/compose.yaml";
const PROMETHEUS: &str = "config/container/prometheus.yml";
const ALERTS: &str = "config/container/alerts.yml";

/// The container of the server for Kubernetes, and the pod that it is in.
fn pod() -> (Value, Value) {
    let pod = object("Deployment", "mef3-server")["spec"]["template"]["spec"].clone();
    let containers = list(&pod["containers"]);
    assert_eq!(containers.len(), 1);
    (containers[0].clone(), pod)
}

/// The settings of Envoy.
fn envoy() -> Value {
    let map = object("ConfigMap", "mef3-envoy");
    documents(string(&map["data"]["envoy.yaml"])).remove(0)
}

fn composed() -> Value {
    document(COMPOSE)["services"]["mef3-server"].clone()
}

/// The variables of the server in both, by the file that they are in.
fn variables() -> [(&'static str, BTreeMap<String, String>); 2] {
    let composed = composed();
    let composed = composed["environment"].as_object().unwrap();
    let composed = composed
        .iter()
        .map(|(name, value)| (name.clone(), string(value).into()));
    let (container, _) = pod();
    let listed = list(&container["env"]).iter();
    let listed = listed.map(|it| (string(&it["name"]).into(), string(&it["value"]).into()));
    [
        ("compose", composed.collect()),
        ("kubernetes", listed.collect()),
    ]
}

#[test]
fn the_server_starts_with_what_is_set() {
    for (file, variables) in variables() {
        let arguments = match file {
            "compose" => composed()["command"].clone(),
            _ => pod().0["args"].clone(),
        };
        let arguments: Vec<&str> = list(&arguments).iter().map(string).collect();
        assert_eq!(arguments, ["serve"]);
        let launch = variables
            .iter()
            .fold(Launch::command(["serve"]), |launch, (name, value)| {
                // The ports may be in use here.
                let value = match name.ends_with("_LISTEN") {
                    true => value.rsplit_once(':').unwrap().0.to_owned() + ":0",
                    false => value.clone(),
                };
                launch.env(name, value)
            });
        let mut server = launch.start();
        server.logged("admin port is open");
        server.signal(Signal::TERM);
        assert_eq!(server.wait(LIMIT).code(), Some(0), "{file}");
    }
}

/// A server with an admin port, and what that answers.
fn start() -> (Server, SocketAddr) {
    let server = Launch::new()
        .env("MEF3_SERVER_ADMIN_LISTEN", "127.0.0.1:0")
        .start();
    let record = server.logged("admin port is open");
    let admin = string(&record["address"]).parse().unwrap();
    until("the server is ready", LIMIT, || {
        get(admin, "/readyz").starts_with("HTTP/1.1 200")
    });
    (server, admin)
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn probes_ask_for_what_health_answers_to() {
    let (server, _) = start();
    let (container, _) = pod();
    let mut names = BTreeSet::new();
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let grpc = &container[probe]["grpc"];
        assert_eq!(
            grpc["port"], container["ports"][0]["containerPort"],
            "{probe}"
        );
        names.insert(string(&grpc["service"]).to_owned());
    }
    assert_eq!(container["livenessProbe"]["grpc"]["service"], "liveness");
    names.extend(
        all_under(&envoy(), "service_name")
            .into_iter()
            .map(|it| string(it).to_owned()),
    );
    for name in names {
        let address = server.address.to_string();
        let ended = Launch::command(["health", &address, "--service", &name]).run();
        assert!(ended.status.success(), "{}", ended.stderr);
    }
}

#[test]
fn the_container_asks_the_server_by_a_command_that_there_is() {
    let (server, _) = start();
    let container = text(CONTAINERFILE);
    let check = container.split_once("HEALTHCHECK ").unwrap().1;
    let command = check.split_once("CMD ").unwrap().1.lines().next().unwrap();
    let command: Vec<String> = serde_json::from_str(command).unwrap();
    let entry = instructions(&container, "ENTRYPOINT")[0];
    assert_eq!(
        serde_json::from_str::<Vec<String>>(entry).unwrap(),
        command[..1]
    );
    // The server is at another port here.
    let [_, name, _] = &command[..] else {
        panic!("{command:?}");
    };
    let ended = Launch::command([name, &server.address.to_string()]).run();
    assert!(ended.status.success(), "{}", ended.stderr);
    let default = instructions(&container, "CMD").pop().unwrap();
    assert_eq!(default, "[\"serve\"]");
}

/// The words of a text that begin so.
fn words<'a>(text: &'a str, beginning: &str) -> BTreeSet<&'a str> {
    let parts = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    parts.filter(|part| part.starts_with(beginning)).collect()
}

#[test]
fn alerts_are_about_figures_that_the_server_tells() {
    let (_server, admin) = start();
    let scrape = get(admin, "/metrics");
    let samples = scrape.lines().filter(|line| line.starts_with("mef3_"));
    let samples: BTreeSet<&str> = samples
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .collect();
    let alerts = document(ALERTS);
    let mut asked = BTreeSet::new();
    for rule in all_under(&alerts, "rules").into_iter().flat_map(list) {
        let expression = string(&rule["expr"]);
        let names = words(expression, "mef3_");
        for name in &names {
            assert!(samples.contains(name), "no {name} in the metrics");
        }
        assert!(!names.is_empty() || expression.starts_with("up{job=\"mef3-server\"}"));
        assert!(!string(&rule["annotations"]["summary"]).is_empty());
        asked.extend(names.into_iter().map(ToOwned::to_owned));
    }
    for name in [
        "mef3_worker_restarts_total",
        "mef3_pages_quarantined",
        "mef3_degraded",
        "mef3_streams_refused_total",
        "mef3_queue_delay_seconds_bucket",
    ] {
        assert!(asked.contains(name), "no alert about {name}");
    }
    let prometheus = document(PROMETHEUS);
    let job = &prometheus["scrape_configs"][0];
    assert_eq!(job["job_name"], "mef3-server");
    assert!(get(admin, string(&job["metrics_path"])).starts_with("HTTP/1.1 200"));
    let rules = files::path(PROMETHEUS);
    let rules = rules.parent().unwrap();
    for file in list(&prometheus["rule_files"]) {
        assert!(rules.join(string(file)).exists());
    }
}

#[test]
#[ignore = "needs promtool"]
fn alerts_are_such_as_prometheus_takes() {
    let checked = Command::new("promtool")
        .args(["check", "rules"])
        .arg(files::path(ALERTS))
        .output()
        .unwrap_or_else(|error| panic!("promtool: {error}"));
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn settings_that_the_alerts_name_exist() {
    let known = text("config/mef3-server.toml");
    let known: toml::Table = known.parse().unwrap();
    let alerts = text(ALERTS);
    let parts = alerts.split(|it: char| !it.is_ascii_alphanumeric() && it != '_' && it != '.');
    let mut named = 0;
    for part in parts {
        let Some((section, key)) = part.trim_end_matches('.').split_once('.') else {
            continue;
        };
        let Some(keys) = known.get(section).and_then(toml::Value::as_table) else {
            continue;
        };
        assert!(keys.contains_key(key), "{section}.{key}");
        named += 1;
    }
    assert!(named >= 4);
}

#[test]
fn the_units_say_what_the_server_understands() {
    let unit = text("config/mef3-server.service");
    let command = of_unit(&unit, "ExecStart")[0];
    let help = Launch::command(["serve", "--help"]).run();
    let mut words = command.split(' ').skip(1);
    assert_eq!(words.next(), Some("serve"));
    for flag in words.filter(|word| word.starts_with("--")) {
        assert!(help.stdout.contains(flag), "{flag}");
    }
    let sockets = text("config/mef3-server.socket");
    assert_eq!(of_unit(&sockets, "FileDescriptorName"), ["grpc"]);
    let streams = of_unit(&sockets, "ListenStream");
    assert!(!streams.is_empty());
    for stream in streams {
        match stream.parse::<SocketAddr>() {
            // As it stands, it has to start without a certificate.
            Ok(address) => Config::default().check_exposure_of(address).unwrap(),
            Err(_) => assert!(Path::new(stream).is_absolute(), "{stream}"),
        }
    }
}

#[test]
fn an_image_is_built_from_what_it_needs() {
    let ignored = text(".dockerignore");
    let ignored: Vec<&str> = ignored
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert!(ignored.contains(&"/target") && ignored.contains(&"/.git"));
    for needed in [
        "Cargo.toml",
        "Cargo.lock",
        "build.rs",
        "src",
        "proto",
        "tests",
        "benches",
    ] {
        assert!(files::path(needed).exists(), "{needed}");
        assert!(
            !ignored.contains(&&*format!("/{needed}")),
            "{needed} is left out"
        );
    }
    let context = files::path(COMPOSE);
    let context = context
        .parent()
        .unwrap()
        .join(string(&composed()["build"]["context"]));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(
        context.canonicalize().unwrap(),
        root.canonicalize().unwrap()
    );
    assert!(
        context
            .join(string(&composed()["build"]["dockerfile"]))
            .exists()
    );
}
