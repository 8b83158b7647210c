//! The files that a deployment begins with: what they say of the server is so.

mod common;

#[path = "deploy_files/files.rs"]
mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use common::process::{LIMIT, Launch, Server, until};
use files::{all_under, document, documents, instructions, list, object, of_unit, string, text};
use mef3_server::config::Config;
use rustix::process::Signal;
use serde_json::{Value, json};

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

fn port_of(variables: &BTreeMap<String, String>, name: &str) -> u64 {
    let address: SocketAddr = variables[name].parse().unwrap();
    assert!(
        address.ip().is_unspecified(),
        "nobody outside reaches {address}"
    );
    address.port().into()
}

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

#[test]
fn ports_are_those_that_the_server_listens_on() {
    let [(_, composed_variables), (_, variables)] = variables();
    let grpc = port_of(&variables, "MEF3_SERVER_SERVER_LISTEN");
    let admin = port_of(&variables, "MEF3_SERVER_ADMIN_LISTEN");
    assert_eq!(grpc, u64::from(Config::default().server.listen.port()));
    assert_eq!(
        port_of(&composed_variables, "MEF3_SERVER_SERVER_LISTEN"),
        grpc
    );
    assert_eq!(
        port_of(&composed_variables, "MEF3_SERVER_ADMIN_LISTEN"),
        admin
    );

    let container = text(CONTAINERFILE);
    assert_eq!(
        instructions(&container, "EXPOSE"),
        [format!("{grpc} {admin}")]
    );
    assert!(container.contains(&format!("\"health\", \"127.0.0.1:{grpc}\"")));
    let published = composed()["ports"].clone();
    // For this machine only: nothing is encrypted.
    assert_eq!(published, json!([format!("127.0.0.1:{grpc}:{grpc}")]));

    let (container, _) = pod();
    assert_eq!(
        container["ports"],
        json!([{"name": "grpc", "containerPort": grpc}, {"name": "admin", "containerPort": admin}])
    );
    let service = object("Service", "mef3-server");
    let ports: Vec<&Value> = all_under(&service, "port");
    assert_eq!(ports, [&json!(grpc), &json!(admin)]);
    let policy = object("NetworkPolicy", "mef3-server");
    assert_eq!(all_under(&policy, "port"), [&json!(grpc), &json!(admin)]);

    let envoy = object("ConfigMap", "mef3-envoy")["data"]["envoy.yaml"].clone();
    let envoy = &documents(string(&envoy))[0];
    let cluster = &envoy["static_resources"]["clusters"][0];
    let endpoints = all_under(cluster, "socket_address");
    let upstream = json!({"address": "mef3-server", "port_value": grpc});
    assert_eq!(endpoints, [&upstream]);
    let front = &envoy["static_resources"]["listeners"][0]["address"]["socket_address"];
    let target = &object("Deployment", "mef3-envoy")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(front["port_value"], target["ports"][0]["containerPort"]);

    let scraped = all_under(&document(PROMETHEUS), "targets")[0].clone();
    assert_eq!(scraped, json!([format!("mef3-server:{admin}")]));
}

#[test]
fn calls_for_one_recording_go_to_one_server() {
    let envoy = object("ConfigMap", "mef3-envoy")["data"]["envoy.yaml"].clone();
    let envoy = &documents(string(&envoy))[0];
    assert_eq!(all_under(envoy, "lb_policy"), [&json!("RING_HASH")]);
    let route = all_under(envoy, "route")[0];
    let header = &route["hash_policy"][0]["header"]["header_name"];
    assert_eq!(
        route["cluster"],
        envoy["static_resources"]["clusters"][0]["name"]
    );
    assert!(text("README.md").contains(string(header)));
    // The name has to be the addresses of the servers, and not one in front of them.
    let service = object("Service", "mef3-server");
    assert_eq!(service["spec"]["clusterIP"], "None");
}

#[test]
fn selectors_find_what_they_are_for() {
    for name in ["mef3-server", "mef3-envoy"] {
        let deployment = object("Deployment", name);
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
        let service = if name == "mef3-envoy" { "mef3" } else { name };
        assert_eq!(&object("Service", service)["spec"]["selector"], labels);
    }
    let (_, pod) = pod();
    let labels = &object("Deployment", "mef3-server")["spec"]["selector"]["matchLabels"];
    let budget = object("PodDisruptionBudget", "mef3-server");
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    let policy = object("NetworkPolicy", "mef3-server");
    assert_eq!(&policy["spec"]["podSelector"]["matchLabels"], labels);
    let from = &policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"];
    let envoy = object("Deployment", "mef3-envoy");
    assert_eq!(from, &envoy["spec"]["selector"]["matchLabels"]);
    let spread = &pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"];
    assert_eq!(spread, labels);
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
    let envoy = object("ConfigMap", "mef3-envoy")["data"]["envoy.yaml"].clone();
    let envoy = &documents(string(&envoy))[0];
    names.extend(
        all_under(envoy, "service_name")
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
    match Command::new("promtool")
        .args(["check", "rules"])
        .arg(rules.join("alerts.yml"))
        .output()
    {
        Ok(checked) => assert!(checked.status.success(), "{checked:?}"),
        Err(error) => eprintln!("NOT CHECKED: the alerts' expressions, since promtool: {error}"),
    }
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

#[test]
fn memory_holds_what_the_server_is_told_to_keep() {
    let [(_, composed_variables), (_, variables)] = variables();
    let mib = |text: &str| -> usize {
        let number: usize = text
            .trim_end_matches(|it: char| !it.is_ascii_digit())
            .parse()
            .unwrap();
        number * 1024
    };
    let composed = mib(string(&composed()["mem_limit"]));
    let (container, _) = pod();
    let limit = mib(string(&container["resources"]["limits"]["memory"]));
    for (limit, variables) in [(composed, composed_variables), (limit, variables)] {
        let config = settings(&variables);
        // A cache takes a fifth more than its budget.
        assert!(limit > config.cache.size_mb * 2, "{limit} MiB");
    }
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
