package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"openvstorage/alba/cluster"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/arakoon"
	"openvstorage/arakoon/state"
	"openvstorage/internal/disk/osdisk"
)

// Errors of functions come back as they were, on a real disk too; those that
// are Arakoon's stay so, but for what no state could take.
func TestErrors(t *testing.T) {
	fns := []userfn.Function{
		{Name: "fail", Version: 1, Run: func(tx userfn.Tx, arg []byte) ([]byte, error) {
			tx.Set([]byte("k"), arg)
			return nil, userfn.Errorf(userfn.CodeLease, "no: %s", arg)
		}},
		{Name: "wrapped", Version: 1, Run: func(userfn.Tx, []byte) ([]byte, error) {
			return nil, fmt.Errorf("outer: %w", userfn.Errorf(userfn.CodeGap, "inner"))
		}},
		{Name: "plain", Version: 1, Run: func(userfn.Tx, []byte) ([]byte, error) { return nil, errors.New("plain") }},
		{Name: "large", Version: 1, Run: func(tx userfn.Tx, _ []byte) ([]byte, error) {
			tx.Set(make([]byte, state.KeyMax+1), nil)
			return nil, nil
		}},
		{Name: "tx", Version: 1, Run: func(tx userfn.Tx, _ []byte) ([]byte, error) {
			for _, k := range []string{"a", "b", "c"} {
				tx.Set([]byte(k), []byte(k))
			}
			tx.Delete([]byte("b"))
			tx.Delete([]byte("absent"))
			var got []byte
			add := func(k, _ []byte) bool { got = append(got, k...); return true }
			tx.Range(nil, nil, 0, add)
			tx.Reverse(nil, nil, 0, add)
			tx.Range(nil, nil, 1, add)
			tx.Reverse(nil, nil, 2, add)
			return got, nil
		}},
	}
	node, err := arakoon.Open(arakoon.Options{FS: osdisk.New(), Dir: t.TempDir() + "/node", Cluster: testCluster, Member: 1, Functions: cluster.Functions(fns)})
	if err != nil {
		t.Fatal(err)
	}
	c := cluster.NewClient(node)
	var e *userfn.Error
	if _, err := c.Call(ctx, "fail", 1, []byte("x")); !errors.As(err, &e) || *e != (userfn.Error{Code: userfn.CodeLease, Message: "no: x"}) {
		t.Error(err)
	}
	if _, err := c.Call(ctx, "wrapped", 1, nil); !errors.As(err, &e) || *e != (userfn.Error{Code: userfn.CodeGap, Message: "outer: inner"}) {
		t.Error(err)
	}
	var own *arakoon.Error
	if _, err := c.Call(ctx, "plain", 1, nil); !errors.As(err, &own) || own.Code != state.CodeFunction {
		t.Error(err)
	}
	if _, err := c.Call(ctx, "large", 1, nil); !errors.As(err, &e) || e.Code != userfn.CodeInvalid {
		t.Error(err)
	}
	if _, err := c.Call(ctx, "absent", 1, nil); !errors.Is(err, state.ErrUnknownFunction) {
		t.Error(err)
	}
	if got, err := c.Call(ctx, "tx", 1, nil); err != nil || string(got) != "aca" {
		t.Errorf("%s, %v", got, err)
	}
	values, err := c.MultiGet(ctx, [][]byte{[]byte("a"), []byte("k"), []byte("c")}, userfn.Local)
	if err != nil || string(values[0]) != "a" || values[1] != nil || string(values[2]) != "c" {
		t.Error(values, err)
	}
	for limit, want := range []int{0, 1, 2, 2} {
		if pairs, err := c.Range(ctx, nil, nil, limit, userfn.Consistent); err != nil || len(pairs) != want {
			t.Error(limit, pairs, err)
		}
	}
	if pairs, err := c.Range(ctx, []byte("a\x00"), []byte("c"), 9, userfn.Consistent); err != nil || len(pairs) != 0 {
		t.Error(pairs, err)
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Call(ctx, "tx", 1, nil); !errors.Is(err, arakoon.ErrClosed) {
		t.Error(err)
	}
}

// busy refuses the first calls.
type busy struct {
	cluster.Node
	left, calls int
}

func (b *busy) Call(context.Context, string, uint32, []byte) ([]byte, error) {
	b.calls++
	if b.left--; b.left >= 0 {
		return nil, fmt.Errorf("%w: it is", arakoon.ErrBusy)
	}
	return []byte("done"), nil
}

// lost does not know what became of a call.
type lost struct{ busy }

func (l *lost) Call(context.Context, string, uint32, []byte) ([]byte, error) {
	l.calls++
	return nil, arakoon.ErrUnknownOutcome
}

// Only what has certainly not happened is tried again, and not for ever.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if got, err := cluster.NewClient(&busy{left: 36}).Call(ctx, "f", 1, nil); err != nil || string(got) != "done" {
			t.Error(got, err)
		}
		if got, err := cluster.NewClient(&busy{left: 37}).Call(ctx, "f", 1, nil); !errors.Is(err, arakoon.ErrBusy) || got != nil {
			t.Error(got, err)
		}
		ctx, cancel := context.WithTimeout(ctx, 2*arakoon.BusyWait)
		defer cancel()
		if _, err := cluster.NewClient(&busy{left: 36}).Call(ctx, "f", 1, nil); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, arakoon.ErrBusy) {
			t.Error(err)
		}
		l := &lost{}
		if _, err := cluster.NewClient(l).Call(ctx, "f", 1, nil); !errors.Is(err, arakoon.ErrUnknownOutcome) || l.calls != 1 {
			t.Error(l.calls, err)
		}
	})
}
