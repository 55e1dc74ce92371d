package api_test

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sixpn/sixpn/api"
	"github.com/sixpn/sixpn/state"
)

func TestDig(t *testing.T) {
	s := newStage(t)
	for query, want := range map[string][3]string{ // the network, name and type that are asked for
		"?name=web.internal":                       {"default", "web.internal", "AAAA"},
		"?name=_apps.internal.&type=TXT":           {"default", "_apps.internal.", "TXT"},
		"?name=fdaa::3&type=PTR&network=spare":     {"spare", "fdaa::3", "PTR"},
		"?name=web.internal&type=&network=default": {"default", "web.internal", "AAAA"},
	} {
		var result api.DigResult
		s.get("/v1/orgs/acme/dig"+query).into(t, &result)
		network, _ := s.store.Snapshot().NetworkNamed("acme", want[0])
		if s.names.network != network.ID || s.names.name != want[1] || s.names.kind != want[2] || result.Rcode != "NOERROR" || len(result.Answers) != 1 {
			t.Errorf("dig%s asked network %v for %s %s and answers %+v", query, s.names.network, s.names.kind, s.names.name, result)
		}
	}
	s.refused(t, refusal{code: 422, status: "invalid_argument", field: "name"}, func() answer { return s.get("/v1/orgs/acme/dig?name=") })
	s.refused(t, refusal{code: 400, status: "invalid_argument", field: "name"}, func() answer { return s.get("/v1/orgs/acme/dig") })
	s.names.failure = api.Invalid("type", "type is nonsense")
	s.refused(t, refusal{code: 422, status: "invalid_argument", field: "type"}, func() answer { return s.get("/v1/orgs/acme/dig?name=a&type=nonsense") })
}

func TestPing(t *testing.T) {
	s := newStage(t)
	const path = "/v1/orgs/acme/ping"
	for body, want := range map[string]api.Echo{
		`{}`: {Count: 4, Interval: time.Second, Timeout: 2 * time.Second, Size: 56},
		`{"target":"a.internal","count":1,"interval":"10ms","timeout":"1m","size":0}`: {Target: "a.internal", Count: 1, Interval: 10 * time.Millisecond, Timeout: time.Minute},
	} {
		a := s.post(path, body)
		if a.code != http.StatusOK || a.header.Get("Content-Type") != "application/x-ndjson" || s.names.echo != want {
			t.Errorf("ping %s: %d, asked for %+v, expected %+v", body, a.code, s.names.echo, want)
		}
		lines := strings.Split(strings.TrimSpace(string(a.body)), "\n")
		var last api.PingLine
		must(t, json.Unmarshal([]byte(lines[len(lines)-1]), &last))
		if len(lines) != want.Count+1 || last.Type != "summary" || last.Sent != want.Count {
			t.Errorf("ping %s: %s, expected %d replies and a summary", body, a.body, want.Count)
		}
	}
	for body, field := range map[string]string{
		`{"count":-1}`: "count", `{"count":1001}`: "count", `{"size":-1}`: "size", `{"size":8953}`: "size",
		`{"interval":"9ms"}`: "interval", `{"interval":"2m"}`: "interval", `{"timeout":"1ns"}`: "timeout", `{"timeout":"61s"}`: "timeout",
	} {
		s.refused(t, refusal{code: 422, status: "invalid_argument", field: field}, func() answer { return s.post(path, body) })
	}
	s.names.failure = api.Invalid("target", "there is no such name")
	s.refused(t, refusal{code: 422, status: "invalid_argument", field: "target"}, func() answer { return s.post(path, `{"target":"x.internal"}`) })

	// What breaks off must not look like what ended.
	s.names.failure, s.names.after = errors.New("the router is gone"), 2
	response, err := s.http.Post("http://sixpn"+path, "application/json", strings.NewReader(`{}`))
	must(t, err)
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err == nil || strings.Count(string(body), "\n") != 2 {
		t.Errorf("read %q and error %v, expected two lines and an error", body, err)
	}
}

func TestRegions(t *testing.T) {
	w := newWorld(t)
	w.seed()
	_, revision, err := w.store.JoinHost(t.Context(), state.NewHost{Name: "gate", Region: "lhr", Token: "gate", Gateway: true})
	must(t, err)
	w.seen(revision)
	var list api.RegionList
	w.get("/v1/platform/regions").into(t, &list)
	if list.Nearest != "ams" || len(list.Regions) != len(state.Regions()) {
		t.Errorf("%d regions, nearest %q, expected all and ams", len(list.Regions), list.Nearest)
	}
	found := map[string]api.Region{}
	for _, r := range list.Regions {
		found[r.Code] = r
	}
	for code, r := range found {
		if r.GatewayAvailable != (code == "lhr") {
			t.Errorf("%s has a gateway: %v, expected one in lhr alone", code, r.GatewayAvailable)
		}
	}
	want := api.Region{Code: "ams", Name: "Amsterdam, Netherlands", Latitude: 52.31, Longitude: 4.76, Capacity: state.MaxHostMachines - 1, GeoRegion: "europe", DistanceKm: new(float64)}
	if diff := cmp.Diff(want, found["ams"]); diff != "" {
		t.Errorf("region (-want +got):\n%s", diff)
	}
	if fra := found["fra"]; fra.RoundTripMs == nil || *fra.RoundTripMs != 9.5 || fra.DistanceKm == nil || math.Round(*fra.DistanceKm) != 367 {
		t.Errorf("fra is %v km and %v ms away, expected 367 and 9.5", fra.DistanceKm, fra.RoundTripMs)
	}
	if c := found["fra"].Capacity; c != 0 {
		t.Errorf("capacity %d of a region without a host, expected 0", c)
	}
	for continent, codes := range map[string]string{
		"north_america": "atl bos dfw gdl iad lax mia qro sea sjc yul yyz", "south_america": "bog eze gig gru lim scl",
		"europe": "ams arn bcn fra hel ist lhr lis mad otp waw", "africa": "cpt jnb los nbo",
		"asia_pacific": "bkk bom del doh dxb hkg mel nrt per sin syd tlv tpe",
	} {
		for _, code := range strings.Fields(codes) {
			if found[code].GeoRegion != continent {
				t.Errorf("%s is in %q, expected %s", code, found[code].GeoRegion, continent)
			}
		}
	}
	w.store.SetHost(w.host) // to which the one with the gateway is lost
	w.get("/v1/platform/regions").into(t, &list)
	for _, r := range list.Regions {
		if r.GatewayAvailable {
			t.Errorf("%s has a gateway, whose host is lost", r.Code)
		}
	}
}
