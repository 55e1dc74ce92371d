package state

import (
	"crypto/rand"
	"reflect"
)

// Who did what an event says, as the Machines API calls them.
const (
	sourceUser = "user"
	sourceHost = "flyd"
)

// eventsOf is the events of a Machine after a change of it: this is the one place
// that decides what has happened. The first Machine is the zero one for a new one.
func eventsOf(before, after Machine, source string) []Event {
	var fresh []Event
	happened := func(kind string) *Event {
		fresh = append(fresh, Event{ID: rand.Text(), Type: kind, Status: after.State, Source: source, Timestamp: after.UpdatedAt})
		return &fresh[len(fresh)-1]
	}
	if before.ID == "" {
		happened("launch")
	} else {
		if kind := asked(before, after); kind != "" {
			happened(kind)
		}
		if before.Cordoned != after.Cordoned {
			happened(map[bool]string{true: "cordon", false: "uncordon"}[after.Cordoned])
		}
		if kind := seen(before, after); kind != "" {
			e := happened(kind)
			if kind == "exit" {
				e.Requested = before.Desired != Started || before.Pending != ""
				// One that failed on its way never ran: the code is that of an older run.
				if after.State != Failed {
					e.ExitCode = after.ExitCode
				}
			}
		}
	}
	if len(fresh) == 0 {
		return after.Events
	}
	kept := after.Events[:min(len(after.Events), MaxEvents-len(fresh))]
	all := make([]Event, 0, len(fresh)+len(kept))
	for i := range fresh {
		all = append(all, fresh[len(fresh)-1-i])
	}
	return append(all, kept...)
}

// asked is what somebody wants of the Machine that was not wanted before.
func asked(before, after Machine) string {
	switch {
	case before.Network != after.Network:
		return "move"
	case after.Leaving() && !reflect.DeepEqual(before.Migration, after.Migration):
		return "migrate"
	case before.Desired != after.Desired && after.Desired == Destroyed:
		return "destroy"
	case !reflect.DeepEqual(before.Config, after.Config):
		return "update"
	case before.Desired != after.Desired && after.Desired == Stopped:
		return "stop"
	case before.Desired != after.Desired && after.Desired == Suspended:
		return "suspend"
	case after.Desired != Started:
		return ""
	case before.InstanceID != after.InstanceID && before.Desired == Started && before.State != Stopped && before.State != Failed:
		return "restart"
	case before.InstanceID != after.InstanceID:
		return "start"
	case before.Desired == Suspended:
		return "resume"
	case before.Desired != Started:
		return "start"
	}
	return ""
}

// seen is what became of the Machine.
func seen(before, after Machine) string {
	if before.State == after.State {
		return ""
	}
	switch after.State {
	case Started:
		if before.State == Suspending || before.State == Suspended {
			return "resume"
		}
		return "start"
	case Suspended:
		return "suspend"
	case Starting:
		if after.Restarts > before.Restarts {
			return "restart"
		}
	case Stopped, Failed:
		if before.State != Stopped && before.State != Failed {
			return "exit"
		}
	case Destroyed:
		return "destroy"
	case Created, Stopping, Suspending, Destroying:
	}
	return ""
}
