package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/backend"
)

// twoHosts is a backend with a second NSM host, and whoever moves namespaces between the two.
func twoHosts(t *testing.T) (b *albatest.Backend, mover *abm.Mover, second uint64) {
	t.Helper()
	store := nsmtest.New(nsm.Functions()...)
	other := nsm.NewClient(store, store)
	host := func(number uint64) (*nsm.Client, error) {
		if number == second {
			return other, nil
		}
		return b.NSM, nil
	}
	b = albatest.New(t, 3, albatest.Small(twoOne), func(o *client.Options) { o.Host = host })
	var err error
	second, err = b.ABM.PutHost(ctx, "nsm-1", nil, false)
	check(t, err)
	check(t, b.ABM.Carry(ctx, second, other))
	return b, &abm.Mover{ABM: b.ABM, Host: host}, second
}

// A namespace moves to and fro between two NSM hosts while it is used: no call fails, and each
// sees what was done before.
func TestNamespaceMovesWhileItIsUsed(t *testing.T) {
	b, mover, second := twoHosts(t)
	check(t, b.CreateNamespace(ctx, "ns"))
	done, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	moves := 0
	work.Go(func() {
		for done.Err() == nil {
			n, err := b.ABM.Namespace(ctx, "ns", userfn.Consistent)
			check(t, err)
			to := second
			if n.Host == second {
				to = 1
			}
			if n, err = (abm.Moves{Client: b.ABM}).BeginMove(ctx, n, to); err != nil {
				t.Errorf("move %d to host %d: %v", moves, to, err)
				return
			}
			if err := mover.Move(ctx, n.Number); err != nil {
				t.Error(err)
				return
			}
			moves++
		}
	})
	ns := b.Namespace("ns")
	kept := map[string][]byte{}
	for i := range 300 {
		name := fmt.Sprint("o", i%37)
		body := data(5000+i, uint64(i))
		if _, there := kept[name]; there {
			check(t, ns.Delete(ctx, []string{name}, nil))
			_, err := ns.Stat(ctx, name)
			if !errors.Is(err, backend.ErrNotFound) {
				t.Fatalf("%s was deleted: %v", name, err)
			}
		}
		check(t, ns.Put(ctx, name, body))
		kept[name] = body
		got := make([]byte, len(body))
		if n, err := ns.Get(ctx, name, got, 0); err != nil && err != io.EOF || !bytes.Equal(got[:n], body) {
			t.Fatalf("%s: %d bytes, %v", name, n, err)
		}
	}
	listed := 0
	check(t, ns.List(ctx, "", func(backend.Info) bool { listed++; return true }))
	stop()
	work.Wait()
	if listed != len(kept) || moves < 3 {
		t.Errorf("%d objects of %d are listed, after %d moves", listed, len(kept), moves)
	}
}

// A move that stops between its last changes and the new host does not hold a call for ever:
// the call ends with its context, or says after a time what it waits for.
func TestMoveThatStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, second := twoHosts(t)
		check(t, b.CreateNamespace(ctx, "ns"))
		ns := b.Namespace("ns")
		check(t, ns.Put(ctx, "before", data(5000, 1)))
		n, err := b.ABM.Namespace(ctx, "ns", userfn.Consistent)
		check(t, err)
		n, err = (abm.Moves{Client: b.ABM}).BeginMove(ctx, n, second)
		check(t, err)
		moves := nsm.Moves{Client: b.NSM}
		for {
			at, err := moves.BeginExport(ctx, n.Number, n.Generation, second)
			check(t, err)
			if at.State != nsm.NamespaceActive {
				break
			}
		}
		_, err = moves.FreezeExport(ctx, n.Number, n.Generation)
		check(t, err)

		brief, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		if err := ns.Put(brief, "during", data(5000, 2)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a put with a second of time: %v", err)
		}
		began := time.Now()
		err = ns.Put(ctx, "during", data(5000, 2))
		if !errors.Is(err, nsm.ErrMoving) || !strings.Contains(err.Error(), "namespace ns") || time.Since(began) > time.Minute {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		got := make([]byte, 5000)
		if _, err := ns.Get(ctx, "before", got, 0); err != nil && err != io.EOF {
			t.Error(err)
		}
	})
}
