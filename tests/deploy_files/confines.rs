//! What the server may do, and how much it may take.

use std::collections::BTreeMap;

use mef3_server::config::Config;
use serde_json::json;

use super::files::{all_under, document, documents, instructions, list, of_unit, string, text};
use super::{COMPOSE, CONTAINERFILE, composed, pod, variables};

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
