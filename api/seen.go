package api

import (
	"errors"
	"fmt"

	"github.com/sixpn/sixpn/state"
)

// What clients read from an agent's answers.

// IsStatus says whether an error is an answer of the agent with this HTTP status.
func IsStatus(err error, code int) bool {
	var answered *Error
	return errors.As(err, &answered) && answered.Code == code
}

// LastExit is how a Machine's last run ended, nil if none did.
func (m *Machine) LastExit() *ExitEvent {
	for _, event := range m.Events {
		if event.Type == "exit" && event.Request.ExitEvent != nil {
			return event.Request.ExitEvent
		}
	}
	return nil
}

// Why is what is known of why a Machine is in its state, as the end of a sentence
// that says which, "" if nothing is.
func (m *Machine) Why() string {
	if m.Message != "" {
		return ": " + m.Message
	}
	if exit := m.LastExit(); exit != nil {
		return fmt.Sprintf(", exit code %d", exit.ExitCode)
	}
	return ""
}

// PassingChecks counts the health checks that pass.
func (m *Machine) PassingChecks() int {
	n := 0
	for _, check := range m.Checks {
		if check.Status == string(state.CheckPassing) {
			n++
		}
	}
	return n
}

// CountChecks counts the health checks that a Machine is to have.
func (c *MachineConfig) CountChecks() int {
	n := len(c.Checks)
	for _, service := range c.Services {
		n += len(service.Checks)
	}
	return n
}
