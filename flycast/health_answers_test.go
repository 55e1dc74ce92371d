package flycast_test

import (
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sixpn/sixpn/state"
)

// TestCheckAnswers asks real servers, in every way they can answer or not.
func TestCheckAnswers(t *testing.T) {
	t.Parallel()
	redirected := make(chan struct{}, 8)
	t.Cleanup(func() { // when all rows are done
		if len(redirected) > 0 {
			t.Error("a redirect was followed")
		}
	})
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	handler := http.NewServeMux()
	answer := func(path string, code int, body string) {
		handler.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		})
	}
	answer("/{$}", 200, "fine")
	answer("/created", 201, "")
	answer("/broken", 500, "out of \x00memory\x1b[31m")
	answer("/long", 500, strings.Repeat("x", 1<<20))
	handler.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/target", http.StatusFound) })
	handler.HandleFunc("/target", func(http.ResponseWriter, *http.Request) { redirected <- struct{}{} })
	handler.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-ended:
		case <-r.Context().Done():
		}
	})
	handler.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	handler.HandleFunc("/header", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Much", strings.Repeat("x", 64<<10)) })
	handler.HandleFunc("POST /asked", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "web.example" || r.URL.RawQuery != "a=b" || r.Header.Get("X-Two") != "2" || r.Header.Get("User-Agent") == "" {
			w.WriteHeader(400)
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewUnstartedServer(handler)
	secure.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	mute, err := net.Listen("tcp", "[::1]:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	gone, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())

	http1 := func(path string) state.Check {
		return state.Check{Type: "http", Path: path, Timeout: 300 * time.Millisecond}
	}
	https := func(change func(*state.Check)) state.Check {
		c := state.Check{Type: "http", Protocol: "https"}
		change(&c)
		return c
	}
	for _, row := range []struct {
		name    string
		check   state.Check
		address string
		roots   *x509.CertPool
		status  string
		output  string // a part of it
	}{
		{"tcp", state.Check{Type: "tcp"}, plain.Listener.Addr().String(), nil, state.CheckPassing, "connected to [fdaa:0:1:0:3:0:5:2]:8080"},
		{"tcp, silent", state.Check{Type: "tcp"}, mute.Addr().String(), nil, state.CheckPassing, "connected"},
		{"tcp, refused", state.Check{Type: "tcp"}, gone.Addr().String(), nil, state.CheckCritical, "refused"},
		{"200", http1(""), plain.Listener.Addr().String(), nil, state.CheckPassing, "GET http://[fdaa:0:1:0:3:0:5:2]:8080/: 200 OK: fine"},
		{"201", http1("/created"), plain.Listener.Addr().String(), nil, state.CheckPassing, "201 Created"},
		{"404", http1("/nowhere"), plain.Listener.Addr().String(), nil, state.CheckCritical, "404 Not Found"},
		{"500", http1("/broken"), plain.Listener.Addr().String(), nil, state.CheckCritical, "500 Internal Server Error: out of memory[31m"},
		{"500, long", http1("/long"), plain.Listener.Addr().String(), nil, state.CheckCritical, "xxx"},
		{"redirect", http1("/moved"), plain.Listener.Addr().String(), nil, state.CheckCritical, "302 Found"},
		{"slow", http1("/slow"), plain.Listener.Addr().String(), nil, state.CheckCritical, "no answer of [fdaa:0:1:0:3:0:5:2]:8080 within 300ms"},
		{"endless", http1("/endless"), plain.Listener.Addr().String(), nil, state.CheckPassing, "200 OK"},
		{"large header", http1("/header"), plain.Listener.Addr().String(), nil, state.CheckCritical, "header"},
		{"no answer", http1("/"), mute.Addr().String(), nil, state.CheckCritical, "no answer"},
		{"refused", http1("/"), gone.Addr().String(), nil, state.CheckCritical, "refused"},
		{"https asked for http", http1("/"), secure.Listener.Addr().String(), nil, state.CheckCritical, "400"},
		{"method, headers and query", state.Check{Type: "http", Method: "POST", Path: "/asked?a=b", Headers: []state.Header{
			{Name: "host", Values: []string{"web.example"}}, {Name: "X-Two", Values: []string{"2"}},
		}}, plain.Listener.Addr().String(), nil, state.CheckPassing, "200 OK"},
		{"https", https(func(c *state.Check) { c.TLSServerName = "example.com" }), secure.Listener.Addr().String(), roots, state.CheckPassing, "GET https://"},
		{"https, name by header", https(func(c *state.Check) { c.Headers = []state.Header{{Name: "Host", Values: []string{"example.com:443"}}} }),
			secure.Listener.Addr().String(), roots, state.CheckPassing, "200 OK"},
		{"https, no name", https(func(*state.Check) {}), secure.Listener.Addr().String(), roots, state.CheckCritical, "certificate"},
		{"https, another name", https(func(c *state.Check) { c.TLSServerName = "web.test" }), secure.Listener.Addr().String(), roots, state.CheckCritical, "certificate"},
		{"https, unknown signer", https(func(c *state.Check) { c.TLSServerName = "example.com" }), secure.Listener.Addr().String(), nil, state.CheckCritical, "certificate"},
		{"https, unverified", https(func(c *state.Check) { c.TLSSkipVerify = true }), secure.Listener.Addr().String(), nil, state.CheckPassing, "200 OK"},
		{"https of http", https(func(c *state.Check) { c.TLSSkipVerify = true }), plain.Listener.Addr().String(), nil, state.CheckCritical, "tls"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := newRecords(checked(row.check))
			until(t, newProber(t, r, toServer(row.address), row.roots), "the check says something", func() bool {
				c := r.checks(checkedID)
				return len(c) == 1 && c[0].Status != state.CheckWarning
			})
			got := r.checks(checkedID)[0]
			if got.Status != row.status || !strings.Contains(got.Output, row.output) || len(got.Output) > 600 || got.Service != 0 || got.UpdatedAt.IsZero() {
				t.Errorf("the check is %+v, expected %s and %q", got, row.status, row.output)
			}
		})
	}
}
