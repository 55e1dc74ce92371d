package dns

import (
	"strings"
	"testing"

	miekg "github.com/miekg/dns"
	"pgregory.net/rapid"
)

func TestFit(t *testing.T) {
	tests := []struct {
		title    string
		machines int
		edns     uint16 // the size that the client says it can receive; 0: no EDNS
		tcp      bool
		size     int
		whole    bool
	}{
		{title: "small", machines: 2, size: 512, whole: true},
		{title: "no EDNS", machines: 100, size: 512},
		{title: "a size below the least", machines: 100, edns: 100, size: 512},
		{title: "a size that is kept", machines: 100, edns: 700, size: 700},
		{title: "a size above ours", machines: 100, edns: 4096, size: 1232},
		{title: "TCP", machines: 100, tcp: true, size: 65535, whole: true},
		{title: "TCP, more than a message takes", machines: 3000, tcp: true, size: 65535},
	}
	for _, test := range tests {
		t.Run(test.title, func(t *testing.T) {
			query := ask("web.internal.", miekg.TypeAAAA)
			if test.edns != 0 {
				query.SetEdns0(test.edns, false)
			}
			view := NewView(crowd(test.machines), fromHere)
			seen := make(map[string]bool)
			for range 60 {
				reply := view.Answer(acme, query)
				Fit(reply, query, !test.tcp)
				wire, err := reply.Pack()
				if err != nil {
					t.Fatal(err)
				}
				if len(wire) > test.size {
					t.Errorf("%d bytes, expected at most %d", len(wire), test.size)
				}
				// One more record of 28 bytes would have had to be too much.
				if !test.whole && len(wire) < test.size-28 {
					t.Errorf("%d bytes, expected nearly %d", len(wire), test.size)
				}
				if whole := len(reply.Answer) == test.machines; whole != test.whole || reply.Truncated == whole {
					t.Errorf("%d of %d records, truncation bit %v", len(reply.Answer), test.machines, reply.Truncated)
				}
				for _, rr := range reply.Answer {
					seen[rr.String()] = true
				}
			}
			if part := len(seen) < test.machines; part && test.machines <= 100 && test.size > 512 {
				t.Errorf("only %d of %d Machines were in any of 60 replies: the part is not random", len(seen), test.machines)
			}
		})
	}
}

func TestFitText(t *testing.T) {
	query := ask("_apps.internal.", miekg.TypeTXT)
	for _, test := range []struct {
		title string
		apps  int
		udp   bool
		items int
		tc    bool
	}{
		{"what fits", 7, true, 7, false},
		{"over UDP one too many", 8, true, 0, true},
		{"over TCP", 8, false, 8, false},
		{"over TCP the most that a message takes", 1023, false, 1010, true},
	} {
		t.Run(test.title, func(t *testing.T) {
			reply := NewView(street(test.apps), fromHere).Answer(acme, query)
			Fit(reply, query, test.udp)
			if _, err := reply.Pack(); err != nil {
				t.Fatal(err)
			}
			var list string
			if len(reply.Answer) > 0 {
				list = strings.Join(reply.Answer[0].(*miekg.TXT).Txt, "")
			}
			items := strings.Count(list, "app-")
			if items != test.items || reply.Truncated != test.tc {
				t.Errorf("%d apps, truncation bit %v, expected %d and %v", items, reply.Truncated, test.items, test.tc)
			}
		})
	}
}

func TestList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOf(rapid.StringMatching(`[ -+\--~]{1,254}`)).Draw(t, "items")
		made := list(items, ",")
		all, whole := made.strings, !made.cut
		if !whole {
			t.Fatalf("%d items were left out", len(items))
		}
		record := &miekg.TXT{
			Hdr: miekg.RR_Header{Name: ".", Rrtype: miekg.TypeTXT, Class: miekg.ClassINET},
			Txt: all,
		}
		if len(items) == 0 {
			if len(record.Txt) != 0 {
				t.Fatalf("strings of nothing: %q", record.Txt)
			}
			return
		}
		wire := make([]byte, 65535)
		if _, err := miekg.PackRR(record, wire, 0, nil, false); err != nil {
			t.Fatalf("%v: %q", err, record.Txt)
		}
		read := parts(wire[11:][:int(wire[9])<<8|int(wire[10])])
		if list := strings.Join(read, ""); list != strings.Join(items, ",") {
			t.Fatalf("joined: %q", list)
		}
		for _, one := range read[:len(read)-1] {
			if !strings.HasSuffix(one, ",") {
				t.Fatalf("a string ends within an item: %q", one)
			}
		}
	})
}

// parts takes the data of a TXT record apart.
func parts(data []byte) (all []string) {
	for len(data) > 0 {
		end := 1 + int(data[0])
		all = append(all, string(data[1:end]))
		data = data[end:]
	}
	return all
}
