package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// value is one setting: a flag, an environment variable and a key of the file set it
// with the same text, and String says it so that Set takes it back. An error of Set
// says what was expected.
type value interface {
	pflag.Value
	isZero() bool
}

type text struct {
	to    *string
	check func(string) error // nil: anything goes
}

func (v text) String() string { return *v.to }
func (v text) Type() string   { return "text" }
func (v text) isZero() bool   { return *v.to == "" }

func (v text) Set(s string) error {
	if v.check != nil {
		if err := v.check(s); err != nil {
			return err
		}
	}
	*v.to = s
	return nil
}

// oneOf is the check of a text that is one of a few words.
func oneOf(words ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("expected %s", strings.Join(words, ", "))
		}
		return nil
	}
}

// hostPort is the check of an address with its port, where words stand for themselves.
func hostPort(words ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(words, s) {
			return nil
		}
		_, port, err := net.SplitHostPort(s)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 {
			return errors.New("expected an address and a port such as 127.0.0.1:9464 or [::1]:53" + orWords(words))
		}
		return nil
	}
}

// upstream is a resolver; without a port it is port 53.
func upstream(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53).String(), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 {
		return "", errors.New("expected IP addresses, with a port or without, such as 192.0.2.53 or [2001:db8::53]:53")
	}
	return a.String(), nil
}

func orWords(words []string) string {
	var s strings.Builder
	for _, word := range words {
		fmt.Fprintf(&s, ", or %q", word)
	}
	return s.String()
}

type number[T uint16 | uint32] struct {
	to       *T
	min, max T
}

func (v number[T]) String() string { return strconv.FormatUint(uint64(*v.to), 10) }
func (v number[T]) Type() string   { return "number" }
func (v number[T]) isZero() bool   { return *v.to == 0 }

func (v number[T]) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n < uint64(v.min) || n > uint64(v.max) {
		return fmt.Errorf("expected a whole number from %d to %d", v.min, v.max)
	}
	*v.to = T(n)
	return nil
}

type boolean struct{ to *bool }

func (v boolean) String() string   { return strconv.FormatBool(*v.to) }
func (v boolean) Type() string     { return "bool" }
func (v boolean) isZero() bool     { return !*v.to }
func (v boolean) IsBoolFlag() bool { return true }

func (v boolean) Set(s string) error {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("expected true or false")
	}
	*v.to = b
	return nil
}

type span struct{ to *time.Duration }

func (v span) String() string { return v.to.String() }
func (v span) Type() string   { return "duration" }
func (v span) isZero() bool   { return *v.to == 0 }

func (v span) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return errors.New("expected a duration above 0 with its unit, such as 500ms, 30s or 2h4m")
	}
	*v.to = d
	return nil
}

// list is several texts, between commas. A flag that is given again adds to it.
type list struct {
	to    *[]string
	parse func(string) (string, error) // as it is kept
	begun bool
}

func (v *list) String() string { return strings.Join(*v.to, ",") }
func (v *list) Type() string   { return "list" }
func (v *list) isZero() bool   { return len(*v.to) == 0 }

func (v *list) Set(s string) error {
	var all []string
	if s != "" {
		all = strings.Split(s, ",")
	}
	for i, one := range all {
		var err error
		if all[i], err = v.parse(strings.TrimSpace(one)); err != nil {
			return err
		}
	}
	if v.begun {
		all = append(*v.to, all...)
	}
	*v.to, v.begun = all, true
	return nil
}

// regionList is regions, between semicolons. A flag that is given again adds to it.
type regionList struct {
	to    *[]RegionConfig
	begun bool
}

func (v *regionList) Type() string { return "regions" }
func (v *regionList) isZero() bool { return len(*v.to) == 0 }

func (v *regionList) String() string {
	var all []string
	for _, r := range *v.to {
		all = append(all, fmt.Sprintf("%s,%v,%v,%s", r.Code, r.Latitude, r.Longitude, r.Name))
	}
	return strings.Join(all, ";")
}

func (v *regionList) Set(s string) error {
	var all []RegionConfig
	for part := range strings.SplitSeq(s, ";") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		fields := strings.SplitN(part, ",", 4)
		for len(fields) < 4 {
			fields = append(fields, "")
		}
		latitude, err1 := strconv.ParseFloat(strings.TrimSpace(fields[1]), 64)
		longitude, err2 := strconv.ParseFloat(strings.TrimSpace(fields[2]), 64)
		if err1 != nil || err2 != nil {
			return errors.New("expected CODE,LATITUDE,LONGITUDE,NAME such as lab,52.5,13.4,Our cellar; several with semicolons between them")
		}
		all = append(all, RegionConfig{Code: strings.TrimSpace(fields[0]), Name: strings.TrimSpace(fields[3]), Latitude: latitude, Longitude: longitude})
	}
	if v.begun {
		all = append(*v.to, all...)
	}
	*v.to, v.begun = all, true
	return nil
}
