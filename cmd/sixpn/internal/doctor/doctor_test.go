package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sixpn/sixpn/api"
)

// A host that is well, file by file, and what a change of one of them means.
func TestHostFiles(t *testing.T) {
	well := map[string]string{
		"proc/sys/kernel/osrelease":               "6.6.1-test\n",
		"sys/kernel/btf/vmlinux":                  "types",
		"proc/self/mountinfo":                     "30 25 0:26 / /cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
		"cgroup/user/cgroup.freeze":               "0\n",
		"cgroup/system/cgroup.procs":              "1\n",
		"proc/sys/user/max_user_namespaces":       "1000\n",
		"proc/sys/net/ipv6/conf/all/disable_ipv6": "0\n",
		"proc/sys/net/core/bpf_jit_enable":        "1\n",
	}
	const absent = "\x00"
	for _, row := range []struct {
		name, file, content, check string
		want                       Status
	}{
		{"all is well", "", "", "", OK},
		{"an older kernel", "proc/sys/kernel/osrelease", "6.5.9\n", "kernel", Fail},
		{"a much older kernel", "proc/sys/kernel/osrelease", "5.19.0\n", "kernel", Fail},
		{"a newer kernel", "proc/sys/kernel/osrelease", "7.0\n", "kernel", OK},
		{"a kernel without a version", "proc/sys/kernel/osrelease", "new\n", "kernel", Fail},
		{"no types", "sys/kernel/btf/vmlinux", absent, "btf", Fail},
		{"no cgroup2", "proc/self/mountinfo", "30 25 0:26 / /cgroup rw - cgroup cgroup rw\n", "cgroups", Fail},
		{"no freezer", "cgroup/user/cgroup.freeze", absent, "cgroups", Warn},
		{"no user namespaces", "proc/sys/user/max_user_namespaces", "0\n", "user namespaces", Fail},
		{"no such feature", "proc/sys/user/max_user_namespaces", absent, "user namespaces", Fail},
		{"no IPv6", "proc/sys/net/ipv6/conf/all/disable_ipv6", absent, "sysctls", Fail},
		{"no JIT", "proc/sys/net/core/bpf_jit_enable", "0\n", "sysctls", Warn},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := Config{Root: t.TempDir(), Euid: 1000}
			for name, content := range well {
				if name == row.file {
					content = row.content
				}
				path := filepath.Join(c.Root, name)
				if content == absent {
					continue
				}
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, look := range []func() []Finding{c.kernel, c.types, c.cgroups, c.userNamespaces, c.sysctls} {
				for _, finding := range look() {
					want := OK
					if finding.Check == row.check {
						want = row.want
					}
					if finding.Status != want || finding.Status != OK && finding.Remedy == "" {
						t.Errorf("%+v, expected %s", finding, want)
					}
				}
			}
		})
	}
}

func TestMesh(t *testing.T) {
	native := api.MeshStatus{Mode: api.MeshStatusModeNative, Device: "uplink", MTU: 1500, Xdp: api.MeshStatusXdpDriver}
	generic, none := native, native
	generic.Xdp, none.Xdp = api.MeshStatusXdpGeneric, api.MeshStatusXdpNone
	for name, row := range map[string]struct {
		mesh api.MeshStatus
		want []string // parts of findings, each of which is a warning with a remedy
	}{
		"alone":                       {},
		"encrypted":                   {mesh: api.MeshStatus{Mode: api.MeshStatusModeWireguard, Device: "mesh"}},
		"native":                      {native, []string{"can speak for any host"}},
		"native, the driver has none": {generic, []string{"can speak for any host", "generic"}},
		"native, another's program":   {none, []string{"can speak for any host", "takes no XDP program"}},
	} {
		var warned []Finding
		for _, f := range (&Config{}).mesh(api.Status{Mesh: row.mesh}) {
			if f.Status != OK {
				warned = append(warned, f)
			}
		}
		if len(warned) != len(row.want) {
			t.Errorf("%s: %+v, expected %d warnings", name, warned, len(row.want))
			continue
		}
		for i, f := range warned {
			if f.Status != Warn || f.Remedy == "" || !strings.Contains(f.Message, row.want[i]) {
				t.Errorf("%s: %+v, expected a warning of %q with its remedy", name, f, row.want[i])
			}
		}
	}
}

func TestOwner(t *testing.T) {
	for _, row := range []struct {
		alias, name string
		ours        bool
	}{
		{"sixpn:edge:host", "edge", true}, {"sixpn:edge:148e21dad76789", "edge", true},
		{"", "", false}, {"sixpn:", "", false}, {"sixpn:edge", "edge", false}, {"uplink", "uplink", false},
	} {
		if name, ours := owner(row.alias); ours != row.ours || ours && name != row.name {
			t.Errorf("%q is of %q, %t", row.alias, name, ours)
		}
	}
}
