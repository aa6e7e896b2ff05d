// Reads YAML files and decodes every object of KubeVirt's and CDI's groups into those projects' own Go types, strictly: a
// field that does not exist, or one of another type, is an error. Objects of other groups are passed over.
//
// It is no validation by their definitions or webhooks: those come with a running KubeVirt only.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clone "kubevirt.io/api/clone/v1beta1"
	core "kubevirt.io/api/core/v1"
	export "kubevirt.io/api/export/v1beta1"
	snapshot "kubevirt.io/api/snapshot/v1beta1"
	cdi "kubevirt.io/containerized-data-importer-api/pkg/apis/core/v1beta1"
	"sigs.k8s.io/yaml"
)

func decoder() (runtime.Decoder, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		core.AddToScheme, snapshot.AddToScheme, clone.AddToScheme, export.AddToScheme, cdi.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	options := json.SerializerOptions{Yaml: true, Strict: true}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, options), nil
}

// check returns how many objects of the file were decoded.
func check(decoder runtime.Decoder, path string) (int, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	documents := utilyaml.NewYAMLReader(bufio.NewReader(file))
	count := 0
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err != nil {
			return count, err
		}
		var kind struct {
			APIVersion string `json:"apiVersion"`
		}
		if err := yaml.Unmarshal(document, &kind); err != nil {
			return count, err
		}
		group, _, _ := strings.Cut(kind.APIVersion, "/")
		if group != "kubevirt.io" && !strings.HasSuffix(group, ".kubevirt.io") {
			continue
		}
		if _, _, err := decoder.Decode(document, nil, nil); err != nil {
			return count, fmt.Errorf("%s: %w", kind.APIVersion, err)
		}
		count++
	}
}

func main() {
	decoder, err := decoder()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	failed := false
	for _, path := range os.Args[1:] {
		count, err := check(decoder, path)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			failed = true
		}
		fmt.Printf("%d %s\n", count, path)
	}
	if failed {
		os.Exit(1)
	}
}
