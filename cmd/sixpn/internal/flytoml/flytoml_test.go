package flytoml

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/api"
)

func read(t *testing.T, text string, options Options) File {
	t.Helper()
	file, err := Read([]byte(text), options)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// shop is a file with all that has a meaning here.
const shop = `
app = "shop"
primary_region = "ams"
kill_signal = "SIGINT"
kill_timeout = 7

[processes]
web = "./web --port '8080'"
worker = "./worker"

[env]
LEVEL = "debug"
WORKERS = 4
FAST = true

[metadata]
role = "front"

[http_service]
internal_port = 8080
processes = ["web"]
[http_service.concurrency]
type = "connections"
soft_limit = 20
hard_limit = 25
[[http_service.checks]]
path = "/up"
method = "HEAD"
interval = "10s"
timeout = 500
grace_period = "1s"
headers = {Host = "shop.example", X-Two = ["a", "b"]}

[[services]]
protocol = "udp"
internal_port = 9000
processes = ["worker"]
[[services.ports]]
port = "9000"
[[services.ports]]
start_port = 9100
end_port = 9200
[[services.tcp_checks]]
interval = 15000

[checks.alive]
type = "tcp"
port = 8081
processes = ["worker"]

[[restart]]
policy = "never"
processes = ["worker"]

[deploy]
strategy = "immediate"
wait_timeout = "90s"
`

func TestReadAll(t *testing.T) {
	got := read(t, shop, Options{Env: map[string]string{"LEVEL": "info"}})
	common := func(c api.MachineConfig) api.MachineConfig {
		c.Env = map[string]string{"LEVEL": "info", "WORKERS": "4", "FAST": "true", "PRIMARY_REGION": "ams"}
		c.Metadata = map[string]string{"role": "front"}
		c.StopConfig = api.StopConfig{Signal: "SIGINT", Timeout: api.DurationValue(7 * time.Second)}
		return c
	}
	want := File{
		App: "shop", PrimaryRegion: "ams", Strategy: "immediate", WaitTimeout: 90 * time.Second,
		Groups: []Group{
			{"web", common(api.MachineConfig{
				Init:    api.Init{Exec: []string{"./web", "--port", "8080"}},
				Restart: api.Restart{Policy: "on-failure", MaxRetries: crashRetries},
				Services: []api.Service{{
					Protocol: "tcp", InternalPort: 8080, Ports: []api.ServicePort{{Port: 80}},
					Concurrency: &api.Concurrency{Type: "connections", SoftLimit: 20, HardLimit: 25},
					Checks: []api.HealthCheck{{
						Type: "http", Path: "/up", Method: "HEAD", Interval: api.DurationValue(10 * time.Second),
						Timeout: api.DurationValue(500 * time.Millisecond), GracePeriod: api.DurationValue(time.Second),
						Headers: []api.CheckHeader{{Name: "Host", Values: []string{"shop.example"}}, {Name: "X-Two", Values: []string{"a", "b"}}},
					}},
				}},
			})},
			{"worker", common(api.MachineConfig{
				Init:    api.Init{Exec: []string{"./worker"}},
				Restart: api.Restart{Policy: "no"},
				Checks:  map[string]api.HealthCheck{"alive": {Type: "tcp", Port: 8081}},
				Services: []api.Service{{
					Protocol: "udp", InternalPort: 9000, Ports: []api.ServicePort{{Port: 9000}, {StartPort: 9100, EndPort: 9200}},
					Checks: []api.HealthCheck{{Type: "tcp", Interval: api.DurationValue(15 * time.Second)}},
				}},
			})},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What names no group is for app, or for the first group.
func TestDefaultGroup(t *testing.T) {
	const service = "\n[http_service]\ninternal_port = 8080\n[checks.up]\ntype = \"tcp\"\nport = 8080\n[[restart]]\npolicy = \"always\"\n"
	for _, row := range []struct {
		name, processes, serves string
		command                 []string
	}{
		{"no groups", "", "app", []string{"./run"}},
		{"app among others", "[processes]\na = \"x\"\napp = \"y\"\n", "app", nil},
		{"others only", "[processes]\nb = \"x\"\na = \"y\"\n", "a", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, group := range read(t, row.processes+service, Options{Command: row.command}).Groups {
				serves := group.Name == row.serves
				if (len(group.Config.Services) == 1) != serves || (len(group.Config.Checks) == 1) != serves {
					t.Errorf("group %s has services %v and checks %v", group.Name, group.Config.Services, group.Config.Checks)
				}
				if group.Config.Restart.Policy != "always" {
					t.Errorf("group %s has the restart policy %q, although the one that names no group is for all", group.Name, group.Config.Restart.Policy)
				}
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	const head = "[processes]\napp = \"./run\"\n"
	for _, row := range []struct{ name, text, want string }{
		{"all known", "", ""},
		{"a table without a meaning", "[build]\nimage = \"x\"\n[build.args]\nA = \"1\"\n", "build has no meaning here"},
		{"a list of tables", "[[vm]]\nmemory = \"1gb\"\n[[vm]]\ncpus = 2\n", "vm has no meaning here"},
		{"mounts", "[mounts]\nsource = \"data\"\n", "mounts has no meaning here"},
		{"below a known table", "[deploy]\nrelease_command = \"migrate\"\n", "deploy.release_command has no meaning here"},
		{"handlers", "[[services]]\ninternal_port = 1\n[[services.ports]]\nport = 1\nhandlers = [\"http\"]\n[[services.ports]]\nport = 2\nhandlers = [\"tls\"]\n", "services.ports.handlers has no meaning here"},
		{"force_https", "[http_service]\ninternal_port = 1\nforce_https = true\n", "http_service.force_https has no meaning here"},
		{"in a named table", "[checks.up]\ntype = \"tcp\"\nport = 1\nrestart_limit = 3\n", "checks.up.restart_limit has no meaning here"},
		{"unknown, with a near one", "[http_service]\ninternal_prt = 1\n", "http_service.internal_prt is unknown and not used, did you mean internal_port?"},
		{"unknown, near one without a meaning", "[deploy]\nrelease_comand = \"x\"\n", "did you mean release_command?"},
		{"unknown at all", "[quux]\na = 1\n", "quux is unknown and not used"},
		{"unknown key of a named table", "[checks.up]\ntype = \"tcp\"\nprt = 1\n", "checks.up.prt is unknown and not used, did you mean port?"},
		{"requests", "[http_service]\ninternal_port = 1\n[http_service.concurrency]\ntype = \"requests\"\nsoft_limit = 3\n", "http_service.concurrency.type requests has no meaning here"},
		{"autostop", "[http_service]\ninternal_port = 1\nauto_stop_machines = true\n", "http_service.auto_stop_machines is kept"},
		{"autostop off", "[http_service]\ninternal_port = 1\nauto_stop_machines = \"off\"\nauto_start_machines = false\n", ""},
		{"autostart", "[http_service]\ninternal_port = 1\nauto_start_machines = true\n", "http_service.auto_start_machines is kept"},
		{"a check slower than its interval", "[checks.up]\ntype = \"tcp\"\nport = 1\ninterval = \"5s\"\ntimeout = \"6s\"\n", "checks.up: a timeout of 6s is longer than the interval of 5s"},
		{"one slower than the usual interval", "[http_service]\ninternal_port = 1\n[[http_service.checks]]\ntimeout = \"16s\"\n", "internal port 1: a timeout of 16s is longer than the interval of 15s"},
		{"a check as slow as its interval", "[checks.up]\ntype = \"tcp\"\nport = 1\ninterval = \"5s\"\ntimeout = \"5s\"\n", ""},
		{"a service without ports", "[[services]]\ninternal_port = 7\n", "internal port 7 has no ports"},
	} {
		t.Run(row.name, func(t *testing.T) {
			// Tables come last, so that what is before them is of the file itself.
			got := read(t, head+row.text, Options{}).Warnings
			switch {
			case row.want == "" && len(got) > 0, row.want != "" && len(got) != 1:
				t.Errorf("it warns %q, expected %q", got, row.want)
			case row.want != "" && !strings.Contains(got[0], row.want):
				t.Errorf("it warns %q, expected %q", got[0], row.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, row := range []struct {
		name, text, want string
		command          []string
	}{
		{"no TOML", "app = ", "no fly.toml", nil},
		{"a wrong type", "app = 7", "no fly.toml", nil},
		{"no command", `app = "a"`, "there is no command to run", nil},
		{"two commands", "[processes]\napp = \"x\"", "expected one of the two", []string{"y"}},
		{"an empty command", "[processes]\napp = \" \"", "processes.app is empty", nil},
		{"an open quote", "[processes]\napp = \"a 'b\"", "cannot be split", nil},
		{"no such group", "[http_service]\ninternal_port = 1\nprocesses = [\"web\"]", `no process group "web"`, []string{"x"}},
		{"no such group of a check", "[checks.a]\ntype = \"tcp\"\nprocesses = [\"web\"]", "checks.a.processes", []string{"x"}},
		{"no duration", "kill_timeout = \"soon\"", "no duration", []string{"x"}},
		{"a negative duration", "kill_timeout = -1", "out of range", []string{"x"}},
		{"a duration without an end", "kill_timeout = inf", "out of range", []string{"x"}},
		{"no number", "[[services]]\ninternal_port = 1\n[[services.ports]]\nport = \"http\"", "no whole number", []string{"x"}},
		{"no autostop", "[http_service]\nauto_stop_machines = \"maybe\"", "expected true, false", []string{"x"}},
		{"no header", "[checks.a]\ntype = \"http\"\nheaders = {A = 1}", "expected a text", []string{"x"}},
		{"no variable", "[env]\nA = [1]", "no text, number or boolean", []string{"x"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := Read([]byte(row.text), Options{Command: row.command})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("the error is %v, expected %q", err, row.want)
			}
		})
	}
}

// Whatever a file holds, it is refused or gives groups with a command each.
func FuzzRead(f *testing.F) {
	f.Add([]byte(shop))
	examples, err := filepath.Glob("testdata/*.toml")
	if err != nil || len(examples) == 0 {
		f.Fatal("there are no examples: ", err)
	}
	for _, example := range examples {
		text, err := os.ReadFile(example)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, command := range [][]string{nil, {"./run"}} {
			file, err := Read(text, Options{Command: command})
			if err != nil {
				continue
			}
			if len(file.Groups) == 0 {
				t.Error("it has no group")
			}
			for _, group := range file.Groups {
				if len(group.Config.Init.Exec) == 0 {
					t.Errorf("group %q has no command", group.Name)
				}
				if time.Duration(group.Config.StopConfig.Timeout) < 0 {
					t.Errorf("group %q is stopped within %v", group.Name, group.Config.StopConfig.Timeout)
				}
			}
		}
	})
}
