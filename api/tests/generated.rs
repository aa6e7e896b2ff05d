//! The definitions in the Helm chart are those of the code. `UPDATE=1` writes them anew.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests: a panic is how they report, and a file of the source tree need not survive a power cut"
)]

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

const CHART: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/chart/vd-csi/files/crds"
);

fn yaml(definition: &CustomResourceDefinition) -> String {
    let mut value = serde_json::to_value(definition).expect("a definition is JSON");
    // What the API server fills in: it does not belong into a file.
    value.as_object_mut().expect("an object").remove("status");
    let body = serde_saphyr::to_string(&value).expect("JSON is YAML");
    format!(
        "# Generated from the crate `api` by `make manifests`; change the code instead.\n{body}"
    )
}

#[test]
fn the_chart_has_the_definitions_of_the_code() {
    let update = std::env::var_os("UPDATE").is_some();
    for definition in api::definitions() {
        let name = definition.spec.names.plural.clone();
        let path = Path::new(CHART).join(format!("{name}.yaml"));
        let generated = yaml(&definition);
        if update {
            std::fs::create_dir_all(CHART).expect("make the folder");
            std::fs::write(&path, &generated).expect("write a definition");
        }
        let shipped = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            shipped == generated,
            "{} is not what the code says: run `make manifests`",
            path.display()
        );
        let read: CustomResourceDefinition =
            serde_saphyr::from_str(&shipped).expect("a definition can be read");
        assert_eq!(read, definition, "YAML keeps every value");
    }
}
