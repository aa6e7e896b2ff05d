//! What the definitions promise to those who list, watch and edit objects.

use kube::CustomResourceExt;

#[test]
fn every_definition_is_cluster_scoped_with_a_status_and_selectable_by_node() {
    for definition in api::definitions() {
        assert_eq!(definition.spec.scope, "Cluster");
        assert_eq!(definition.spec.versions.len(), 1);
        let version = &definition.spec.versions[0];
        let subresources = version.subresources.as_ref();
        assert!(subresources.is_some_and(|subresources| subresources.status.is_some()));
        let selectable = version.selectable_fields.clone().unwrap_or_default();
        assert!(
            selectable
                .iter()
                .any(|field| field.json_path == ".spec.nodeName"),
            "agents watch their own node's objects only"
        );
    }
}

#[test]
fn the_column_problem_says_what_the_condition_ready_says() {
    for definition in api::definitions() {
        let columns = &definition.spec.versions[0].additional_printer_columns;
        let mut columns = columns.iter().flatten();
        let problem = columns.find(|column| column.name == "Problem").unwrap();
        assert_eq!(
            problem.json_path,
            ".status.conditions[?(@.type=='Ready')].message"
        );
    }
}

#[test]
fn rules_compare_a_volume_with_what_it_was() {
    let definition = serde_json::to_string(&api::LocalVolume::crd()).unwrap();
    assert!(definition.contains("self.spec.sizeBytes >= oldSelf.spec.sizeBytes"));
    assert!(definition.contains("a source is either a snapshot or a volume"));
}
