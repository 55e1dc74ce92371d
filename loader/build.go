package loader

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// Names in the C.
const (
	routerName = "sixpn_router"
	meshName   = "sixpn_mesh"
	uplinkName = "sixpn_uplink"
	expireName = "sixpn_expire"
	flowsName  = "flows"

	driverName  = "sixpn_xdp" // XDP on the uplink, in its driver
	genericName = "sixpn_generic"
)

// onTCX and onXDP are the programs that devices carry. The router is the last that is
// pinned: it says that a version is complete.
var (
	onTCX     = []string{meshName, uplinkName, routerName}
	onXDP     = []string{driverName, genericName}
	onDevices = append(slices.Clone(onXDP), onTCX...)
)

// buildMap is a map that no program reads: it is bound to the programs of devices, and
// says whose they are and which build, to whoever meets one of them on a device.
const buildMap = "sixpn_build"

// signature is the only element of the build map.
type signature struct {
	Hash [sha256.Size]byte // of this build with its constants
	Name [64]byte          // of the agent, padded with zeros
}

func (s signature) agent() string { return strings.TrimRight(string(s.Name[:]), "\x00") }

// build is what this binary would load.
type build struct {
	spec      *ebpf.CollectionSpec // without what is only for measurements
	xdp       *ebpf.CollectionSpec // programs that share the maps of spec
	signature signature
}

func newBuild(config Config) (*build, error) {
	spec, err := readSpec(config.load, config.Constants, append([]string{expireName}, onTCX...))
	if err != nil {
		return nil, err
	}
	xdp, err := readSpec(config.loadXDP, config.Constants, onXDP)
	if err != nil {
		return nil, err
	}
	b := &build{spec: spec, xdp: xdp}
	copy(b.signature.Name[:], config.Name)
	b.signature.Hash = hash(spec, xdp)
	// After the hash: the running table keeps its size, which is no other build.
	if config.FlowTableSize != 0 && spec.Maps[flowsName] != nil {
		spec.Maps[flowsName].MaxEntries = config.FlowTableSize
	}
	return b, nil
}

// readSpec reads an object, of which the needed programs stay, and sets its constants.
func readSpec(load func() (*ebpf.CollectionSpec, error), constants Constants, needed []string) (*ebpf.CollectionSpec, error) {
	spec, err := load()
	if err != nil {
		return nil, fmt.Errorf("read the programs of this build: %w", err)
	}
	for name := range spec.Programs {
		if !slices.Contains(needed, name) {
			delete(spec.Programs, name)
		}
	}
	for _, name := range needed {
		if spec.Programs[name] == nil {
			return nil, fmt.Errorf("this build has no program %s", name)
		}
	}
	return spec, setConstants(spec, constants)
}

func setConstants(spec *ebpf.CollectionSpec, constants Constants) error {
	value := reflect.ValueOf(constants)
	for i := range value.NumField() {
		if value.Field(i).IsZero() {
			continue
		}
		name := value.Type().Field(i).Tag.Get("bpf")
		variable := spec.Variables[name]
		if variable == nil {
			return fmt.Errorf("this build has no constant %q", name)
		}
		// Named types of Go are encoded by their kind.
		var plain any
		switch variable.Size() {
		case 4:
			plain = uint32(value.Field(i).Uint())
		case 8:
			plain = value.Field(i).Uint()
		default:
			return fmt.Errorf("constant %q has %d bytes, expected 4 or 8", name, variable.Size())
		}
		if err := variable.Set(plain); err != nil {
			return fmt.Errorf("set constant %q: %w", name, err)
		}
	}
	return nil
}

// hash covers all that decides what the programs do: instructions, what they ask
// of the kernel's types, constants, and the maps with their layouts. The kernel's
// tag would do for the first only, and changed its meaning in Linux 6.18.
func hash(specs ...*ebpf.CollectionSpec) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, spec := range specs {
		hashSpec(h, spec)
	}
	h.Sum(sum[:0])
	return sum
}

func hashSpec(h io.Writer, spec *ebpf.CollectionSpec) {
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		program := spec.Programs[name]
		_, _ = fmt.Fprintf(h, "program %s %v %v\n%v\n", name, program.Type, program.AttachType, program.Instructions)
		for i := range program.Instructions {
			if relocation := btf.CORERelocationMetadata(&program.Instructions[i]); relocation != nil {
				_, _ = fmt.Fprintf(h, "%d %v\n", i, relocation)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		m := spec.Maps[name]
		_, _ = fmt.Fprintf(h, "map %s %v %d %d %d %d\n%s\n%s\n", name, m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags,
			describe(m.Key), describe(m.Value))
		if isData(name) {
			hashContents(h, m)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Variables)) {
		_, _ = fmt.Fprintf(h, "variable %s %x\n", name, spec.Variables[name].Value)
	}
}

func hashContents(h io.Writer, m *ebpf.MapSpec) {
	for _, content := range m.Contents {
		_, _ = fmt.Fprintf(h, "%v %x\n", content.Key, content.Value)
	}
}

// isData says whether a map is a section of variables: each program has its own.
func isData(name string) bool { return strings.HasPrefix(name, ".") }

// newBuildMap makes the signed map, which nobody can write again.
func (b *build) newBuildMap() (*ebpf.Map, error) {
	size := uint32(reflect.TypeFor[signature]().Size())
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: buildMap, Type: ebpf.Array, KeySize: 4, ValueSize: size, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make the map that signs the build: %w", err)
	}
	if err := errors.Join(m.Put(uint32(0), b.signature), m.Freeze()); err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("sign the build: %w", err)
	}
	return m, nil
}

func readSignature(m *ebpf.Map) (s signature, err error) {
	if int(m.ValueSize()) != int(reflect.TypeFor[signature]().Size()) {
		// An older form: whose it is stands nowhere, and it is no build of ours.
		return s, nil
	}
	err = m.Lookup(uint32(0), &s)
	return s, err
}
