package main

import (
	"strings"
	"time"

	"github.com/sixpn/sixpn/api"
)

// parseChecks makes health checks of a Machine of what people write,
//
//	[NAME=]TYPE:PORT[PATH][,OPTION=VALUE...]
//
// where TYPE is tcp, http or https. NAME is TYPE-PORT if left out.
func parseChecks(specs []string) (map[string]api.HealthCheck, error) {
	checks := map[string]api.HealthCheck{}
	for _, spec := range specs {
		name, check, err := parseCheck(spec)
		if err != nil {
			return nil, err
		}
		if _, taken := checks[name]; taken {
			return nil, usagef("check %q: there is another one named %s, give it another name: NAME=%s", spec, name, spec)
		}
		checks[name] = check
	}
	return checks, nil
}

func parseCheck(spec string) (name string, check api.HealthCheck, err error) {
	target, options, has := strings.Cut(spec, ",")
	if before, after, named := strings.Cut(target, "="); named && !strings.Contains(before, ":") {
		name, target = before, after
	}
	kind, rest, _ := strings.Cut(target, ":")
	port, path := rest, ""
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		port, path = rest[:slash], rest[slash:]
	}
	check = api.HealthCheck{Type: kind, Path: path}
	switch kind {
	case "https":
		check.Type, check.Protocol = "http", "https"
	case "http":
	case "tcp":
		if path != "" {
			return "", check, usagef("check %q: a tcp check has no path, expected tcp:%s", spec, port)
		}
	default:
		return "", check, usagef("check %q: the type is %q, expected tcp, http or https, e.g. http:8080/healthz", spec, kind)
	}
	if check.Port, err = portNumber("check", spec, port); err != nil {
		return "", check, err
	}
	if name == "" {
		name = kind + "-" + port
	}
	if !has {
		return name, check, nil
	}
	for option := range strings.SplitSeq(options, ",") {
		if err := checkOption(spec, option, &check); err != nil {
			return "", check, err
		}
	}
	return name, check, nil
}

func checkOption(spec, option string, check *api.HealthCheck) error {
	key, value, _ := strings.Cut(option, "=")
	durations := map[string]*api.Duration{"interval": &check.Interval, "timeout": &check.Timeout, "grace": &check.GracePeriod}
	if to, ok := durations[key]; ok {
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return usagef("check %q: %s is %q, expected a duration such as 5s", spec, key, value)
		}
		*to = api.DurationValue(d)
		return nil
	}
	switch {
	case key == "method" && check.Type == "http":
		check.Method = value
	case key == "insecure" && check.Protocol == "https" && value == "":
		check.TLSSkipVerify = true
	default:
		return usagef("check %q: there is no option %q, expected interval=, timeout= or grace=, method= of http and https, insecure of https", spec, option)
	}
	return nil
}
