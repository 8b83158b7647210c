//! Ports and names: what one file says of another is so.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mef3_server::config::Config;
use serde_json::{Value, json};

use super::files::{all_under, document, instructions, object, string, text};
use super::{CONTAINERFILE, PROMETHEUS, composed, envoy, pod, variables};

fn port_of(variables: &BTreeMap<String, String>, name: &str) -> u64 {
    let address: SocketAddr = variables[name].parse().unwrap();
    assert!(
        address.ip().is_unspecified(),
        "nobody outside reaches {address}"
    );
    address.port().into()
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

    let envoy = &envoy();
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
    let envoy = &envoy();
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
    let envoy = &object("Deployment", "mef3-envoy")["spec"]["selector"]["matchLabels"];
    assert_eq!(from, envoy);
    let budget = object("PodDisruptionBudget", "mef3-envoy");
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], envoy);
    let spread = &pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"];
    assert_eq!(spread, labels);
}
