package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// parameterFile is a file that stands for a parameter of the kernel.
func parameterFile(t *testing.T, value string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "parameter")
	if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestParameterIsPutBack(t *testing.T) {
	file := parameterFile(t, "old")
	restore, err := setParameter(file, "new")
	if err != nil {
		t.Fatal(err)
	}
	if got := parameter(file); got != "new" {
		t.Errorf("it is %q after it was set", got)
	}
	if restore(); parameter(file) != "old" {
		t.Errorf("it is %q after it was put back", parameter(file))
	}
	if restore, err = setParameter(file, ""); err != nil {
		t.Fatal(err)
	}
	if restore(); parameter(file) != "old" {
		t.Errorf("it is %q after nothing was set", parameter(file))
	}
}

// TestSetAndWait is no test but the process that the next one kills.
func TestSetAndWait(t *testing.T) {
	file := os.Getenv("BENCH_TEST_PARAMETER")
	if file == "" {
		t.Skip("for TestParameterIsPutBackAfterSIGKILL")
	}
	if _, err := setParameter(file, "new"); err != nil {
		t.Fatal(err)
	}
	fmt.Println("set to", parameter(file))
	_, _ = io.Copy(io.Discard, os.Stdin) // which never ends
}

func TestParameterIsPutBackAfterSIGKILL(t *testing.T) {
	file := parameterFile(t, "old")
	cmd := exec.Command(os.Args[0], "-test.run=^TestSetAndWait$")
	cmd.Env = append(os.Environ(), "BENCH_TEST_PARAMETER="+file)
	// The keeper has this pipe too: it ends when both are gone.
	gone, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	cmd.Stderr = theirs
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(said) != "set to new" {
		t.Errorf("it said %q, %v", said, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if complaint, err := io.ReadAll(gone); err != nil || len(complaint) > 0 {
		t.Errorf("the keeper: %q, %v", complaint, err)
	}
	if got := parameter(file); got != "old" {
		t.Errorf("it is %q after the process was killed", got)
	}
}

func TestSettingsOfHaltPoll(t *testing.T) {
	both := []string{"0", "200000"}
	nowhere := filepath.Join(t.TempDir(), "none")
	for _, tt := range []struct {
		name, file, governor string
		wanted, settings     []string
		why                  string
	}{
		{"both", parameterFile(t, "7"), "haltpoll", both, both, ""},
		{"left", parameterFile(t, "7"), "haltpoll", nil, []string{"7"}, "left as it is"},
		{"another governor", parameterFile(t, "7"), "menu", both, []string{"7"}, "menu"},
		{"no such parameter", nowhere, "haltpoll", both, []string{"absent"}, "no such parameter"},
		{"no right to", t.TempDir(), "haltpoll", both, []string{"absent"}, "no such parameter"},
	} {
		former := parameter(tt.file)
		h, settings, why, restore, err := newHaltPoll(tt.file, tt.governor, tt.wanted)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(settings, tt.settings) || !strings.Contains(why, tt.why) || (why == "") != (tt.why == "") {
			t.Errorf("%s: %v, %q; want %v, %q", tt.name, settings, why, tt.settings, tt.why)
		}
		for _, setting := range settings {
			if err := h.set(setting); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			if got := parameter(tt.file); got != setting {
				t.Errorf("%s: it is %q under the setting %s", tt.name, got, setting)
			}
		}
		if restore(); parameter(tt.file) != former {
			t.Errorf("%s: it is %q at the end, and was %q", tt.name, parameter(tt.file), former)
		}
	}
}

// A second measurement would take what the first has set for the former value, and put
// that back when the first is long gone.
func TestOneMeasurementAtATime(t *testing.T) {
	file, both := parameterFile(t, "7"), []string{"0", "200000"}
	_, _, _, restore, err := newHaltPoll(file, "haltpoll", both)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, _, err := newHaltPoll(file, "haltpoll", both); !errors.Is(err, errInUse) {
		t.Errorf("the second measurement: %v, want %v", err, errInUse)
	}
	if _, err := setParameter(file, "0"); !errors.Is(err, errInUse) {
		t.Errorf("the bench beside it: %v, want %v", err, errInUse)
	}
	restore()
	if _, _, _, restore, err = newHaltPoll(file, "haltpoll", both); err != nil {
		t.Fatalf("when the first has ended: %v", err)
	}
	if restore(); parameter(file) != "7" {
		t.Errorf("it is %q at the end", parameter(file))
	}
}
