package nsmtest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"openvstorage/alba/nsm/userfn"
)

// Calls takes down the calls that a client makes, in place of a cluster, and fails each
// with ErrTaken. It is for one goroutine.
type Calls struct {
	userfn.Reader // nil: a client that reads is at fault
	Text          bytes.Buffer
}

// ErrTaken is what every call returns that was taken down.
var ErrTaken = errors.New("taken down")

// Call implements userfn.Caller.
func (c *Calls) Call(_ context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	fmt.Fprintf(&c.Text, "%s %d %x\n", name, version, arg)
	return nil, ErrTaken
}

// CheckTaken demands that every one of some calls was taken down.
func CheckTaken(t testing.TB, errs ...error) {
	t.Helper()
	for i, err := range errs {
		if !errors.Is(err, ErrTaken) {
			t.Fatalf("call %d: %v", i, err)
		}
	}
}

// ErrorOf drops the value of a call.
func ErrorOf[T any](_ T, err error) error { return err }

// CheckCalls demands that a text of Calls has one call of each function, that the
// function reads its argument, and that it refuses by name that of a newer version.
func CheckCalls(t testing.TB, text []byte, functions []userfn.Function) {
	t.Helper()
	args := map[string][]byte{}
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		arg, err := hex.DecodeString(string(f[2]))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		args[string(f[0])+" "+string(f[1])] = arg
	}
	for _, f := range functions {
		arg, ok := args[fmt.Sprintf("%s %d", f.Name, f.Version)]
		if !ok {
			t.Errorf("no call of %s, version %d", f.Name, f.Version)
			continue
		}
		if err := f.Check(arg); err != nil {
			t.Error(err)
		}
		// It is refused before it is proposed.
		arg[0] = 99
		if err := f.Check(arg); !errors.Is(err, userfn.Errorf(userfn.CodeNewer, "")) {
			t.Errorf("%s of another version: %v", f.Name, err)
		}
	}
	if len(args) != len(functions) {
		t.Errorf("%d calls of %d functions", len(args), len(functions))
	}
}

// AtLevel returns those functions that may be proposed from a level of the group on and not
// before; 0: from the first.
func AtLevel(level uint32, functions []userfn.Function) (list []userfn.Function) {
	for _, f := range functions {
		if f.Level == level {
			list = append(list, f)
		}
	}
	return list
}
