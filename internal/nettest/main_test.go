package nettest_test

import (
	"os"
	"testing"

	"github.com/sixpn/sixpn/internal/nettest"
)

func TestMain(m *testing.M) {
	if nettest.Main() {
		return
	}
	os.Exit(m.Run())
}
