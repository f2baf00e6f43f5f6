package nsm_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"openvstorage/alba/nsm"
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
	c := nsm.NewClient(r, r)
	o, p := object("a", 1, "one", 1, 2, 3), object("b", 2, "two")
	for _, err := range []error{
		second(c.Put(ctx, 1, nsm.ReplaceIf, 7, o)),
		second(c.PutMany(ctx, 1, []nsm.Put{{Mode: nsm.Create, Object: o}, {Mode: nsm.CreateOrEqual, Object: p}})),
		second(c.Delete(ctx, 1, []string{"a", "b"}, &nsm.Condition{Name: "a", Version: 5})),
		second(c.Update(ctx, 1, nsm.Update{Name: "b", ID: id(2), Revision: 3, Epoch: 1, Manifest: []byte("m"), Changes: []nsm.Change{{Chunk: 1, Fragment: 2, To: nsm.Fragment{OSD: 7, Version: 4}}}})),
		second(c.OpenEpoch(ctx, 1, 2)),
		second(c.CloseEpoch(ctx, 1, 1)),
		second(c.MarkDeleted(ctx, 3, []nsm.FragmentKey{{Namespace: 1, ID: id(2), Chunk: 3, Fragment: 4, Version: 5}})),
		second(c.Deliver(ctx, 11, []nsm.Message{{Kind: nsm.MessageCreateNamespace, Namespace: 2}, {Kind: nsm.MessageDeleteNamespace, Namespace: 1},
			{Kind: nsm.MessageLinkOSD, OSD: 3, Node: "n"}, {Kind: nsm.MessageUnlinkOSD, OSD: 3, Lost: true}})),
		second(c.Cleanup(ctx, 1, 9)),
		second(c.ForgetOSD(ctx, 3)),
	} {
		if !errors.Is(err, errTaken) {
			t.Fatal(err)
		}
	}
	checkCalls(t, golden.CheckText(t, "testdata/calls-v1.txt", r.text.Bytes()), nsm.Functions())
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
