package dashboards_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest"
)

// prometheus is Debian's, beside an agent on a test's host.
type prometheus struct {
	client *http.Client
	base   string
}

// sample is one series of an answer, now.
type sample struct {
	labels map[string]string
	value  float64
}

// startPrometheus scrapes addresses on the host once a second, with our rules.
func startPrometheus(ctx context.Context, t *testing.T, h *nettest.Host, listen string, scrape []string, flags ...string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs("alerts.yaml")
	must(t, err)
	config := fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs: [{job_name: sixpn, static_configs: [{targets: [%s]}]}]
`, rules, strings.Join(scrape, ", "))
	file := filepath.Join(dir, "prometheus.yml")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	cmd := exec.Command("prometheus", append([]string{
		"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + listen,
		"--storage.tsdb.retention.time=1h", "--log.level=warn",
	}, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	must(t, h.Do(cmd.Start))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("Prometheus: %v", err)
		}
		must(t, log.Close())
	})
	p := &prometheus{base: "http://" + listen, client: h.HTTPClient()}
	must(t, nettest.Eventually(ctx, "Prometheus answers", func(ctx context.Context) error {
		select {
		case err := <-ended:
			ended <- err
			text, _ := os.ReadFile(log.Name())
			return nettest.Final(fmt.Errorf("it ended (%w): %s", err, text))
		default:
		}
		_, err := p.query(ctx, "up")
		return err
	}))
	return p
}

// query asks for the value of an expression now.
func (p *prometheus) query(ctx context.Context, expression string) ([]sample, error) {
	var vector []struct {
		Metric map[string]string
		Value  [2]any
	}
	if err := p.get(ctx, "/api/v1/query?query="+url.QueryEscape(expression), &struct {
		Result any `json:"result"`
	}{&vector}); err != nil {
		return nil, err
	}
	samples := make([]sample, 0, len(vector))
	for _, v := range vector {
		text, ok := v.Value[1].(string)
		if !ok {
			return nil, fmt.Errorf("%s: the value %v is no number", expression, v.Value[1])
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, err
		}
		samples = append(samples, sample{v.Metric, value})
	}
	return samples, nil
}

// get reads the data of an answer of Prometheus' API.
func (p *prometheus) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer := struct {
		Status string
		Error  string
		Data   any
	}{Data: into}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("read the answer of %s: %w", path, err)
	}
	if answer.Status != "success" {
		return errors.New(answer.Error)
	}
	return nil
}
