package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes this binary be `ovs` itself: scripts run what users run.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ovs": main})
}
