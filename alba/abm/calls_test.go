package abm_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/internal/format/golden"
)

// calls takes down what a client has replicated.
type calls struct {
	userfn.Reader
	text bytes.Buffer
}

var errTaken = errors.New("taken down")

func (c *calls) Call(_ context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	fmt.Fprintf(&c.text, "%s %d %x\n", name, version, arg)
	return nil, errTaken
}

// The arguments of calls are in raft logs: calls-v1.txt holds one of each function,
// which is written and read alike for ever.
func TestGoldenCalls(t *testing.T) {
	r := &calls{}
	c := abm.NewClient(r, r)
	health := abm.Health{Capacity: 1, Used: 2, LastRead: 3, LastWrite: 4, LastError: 5, Errors: 6, ChecksumErrors: 7}
	for _, err := range []error{
		c.Init(ctx, [16]byte{1}),
		c.RegisterOSD(ctx, abm.OSD{LongID: [16]byte{1}, Node: "a", Endpoint: []byte{2}, Health: health}),
		second(c.ReplaceOSD(ctx, 3, [16]byte{1})),
		c.LoseOSD(ctx, 3),
		c.PurgeOSD(ctx, 3),
		c.UpdateHealth(ctx, []abm.HealthUpdate{{LongID: [16]byte{2}, Health: health}}),
		second(c.PutPreset(ctx, "p", 2, []byte("data"))),
		c.DeletePreset(ctx, "p"),
		c.SetDefaultPreset(ctx, "p"),
		second(c.CreateNamespace(ctx, "n", "p")),
		second(c.DeleteNamespace(ctx, "n")),
		second(c.PutHost(ctx, "h", []byte{1}, true)),
		second(c.MarkDelivered(ctx, 1, 2)),
		second(c.TakeLease(ctx, "l", 3, "holder")),
		c.PutKeyCheck(ctx, abm.KeyCheck{Number: 7, Kind: abm.KeyCheckV1, Value: [32]byte{1}}),
	} {
		if !errors.Is(err, errTaken) {
			t.Fatal(err)
		}
	}
	checkCalls(t, golden.CheckText(t, "testdata/calls-v1.txt", r.text.Bytes()), abm.Functions())
}

// An OSD that was told its zone is of version 2, in the call and stored; a reader
// that is told none keeps what is known.
func TestGoldenZone(t *testing.T) {
	r := &calls{}
	o := abm.OSD{LongID: [16]byte{1}, Node: "a", Endpoint: []byte{2}, Zone: "zone"}
	if err := abm.NewClient(r, r).RegisterOSD(ctx, o); !errors.Is(err, errTaken) {
		t.Fatal(err)
	}
	s, c := manager(t)
	for range 2 {
		if err := c.RegisterOSD(ctx, o); err != nil {
			t.Fatal(err)
		}
		o.Zone = ""
	}
	_ = s.View(func(tx userfn.Tx) error {
		v, _ := tx.Get(append([]byte("abm/O"), o.LongID[:]...))
		fmt.Fprintf(&r.text, "stored - %x\n", v)
		return nil
	})
	text := golden.CheckText(t, "testdata/osd-v2.txt", r.text.Bytes())
	v, err := hex.DecodeString(string(bytes.Fields(text)[5]))
	if err != nil || v[0] != 2 {
		t.Fatalf("%x, %v", v, err)
	}
	old := nsmtest.New(abm.Functions()...)
	old.Edit(func(tx userfn.Tx) { tx.Set(append([]byte("abm/O"), o.LongID[:]...), v) })
	if got, err := abm.NewClient(old, old).OSD(ctx, o.LongID, userfn.Consistent); err != nil || got.Zone != "zone" || got.Node != "a" {
		t.Fatal(got, err)
	}
}

func second[T any](_ T, err error) error { return err }

// checkCalls demands that there is a call of each function, and that it is read.
func checkCalls(t *testing.T, text []byte, functions []userfn.Function) {
	t.Helper()
	args := map[string][]byte{}
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		args[string(f[0])+" "+string(f[1])], _ = hex.DecodeString(string(f[2]))
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
		// And each of another version is refused by name, before it is proposed.
		arg[0] = 99
		if err := f.Check(arg); !errors.Is(err, userfn.Errorf(userfn.CodeNewer, "")) {
			t.Errorf("%s of another version: %v", f.Name, err)
		}
	}
	if len(args) != len(functions) {
		t.Errorf("%d calls of %d functions", len(args), len(functions))
	}
}
