package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"openvstorage/alba/cluster"
	"openvstorage/alba/nsm"
	"openvstorage/arakoon"
	"openvstorage/internal/disk/osdisk"
)

const (
	commitClients = 64
	commitOSDs    = 9
	commitTurn    = 400 * time.Millisecond

	// manifestSize is about that of the manifest of an object of 64 MiB in four
	// chunks of 2+1 fragments, with its checksums.
	manifestSize = 1 << 10
	// setSize is about what a commit sends: the manifest, and the object for
	// which it stands.
	setSize = manifestSize + 350

	// serverHeap is what a server holds in memory of Go: how often memory is
	// collected, which both sides pay for, depends on it.
	serverHeap = 128 * mib
)

var manifestBytes [manifestSize]byte

// commit is an object of 64 MiB on three of the OSDs.
func commit(n uint64) *nsm.Object {
	o := &nsm.Object{
		Name: fmt.Sprintf("sco-%016x", n), Epoch: 1, Size: 64 * mib, Manifest: manifestBytes[:],
		Policy: nsm.Policy{K: 2, M: 1, C: 2, X: 1}, Chunks: make([]nsm.Chunk, 4),
	}
	binary.BigEndian.PutUint64(o.ID[8:], n)
	binary.LittleEndian.PutUint64(o.Hash[:], n)
	for i := range o.Chunks {
		o.Chunks[i].Length = 8 * mib
		for j := range uint64(3) {
			o.Chunks[i].Fragments = append(o.Chunks[i].Fragments, nsm.Fragment{OSD: 1 + 3*(n%3) + j})
		}
	}
	return o
}

// albaCommits compares commits of manifests with bare sets of the same size and
// of 256 bytes, from 64 clients, in turns, the sets on a group of their own.
func albaCommits(ctx context.Context, r *ring, c benchCase) ([]row, error) {
	heap := make([]byte, serverHeap)
	defer runtime.KeepAlive(heap)
	dir := filepath.Join(r.dir, "commits")
	defer os.RemoveAll(dir)
	var nodes [2]*arakoon.Node
	for i := range nodes {
		n, err := arakoon.Open(arakoon.Options{
			FS: osdisk.New(), Dir: filepath.Join(dir, fmt.Sprint(i)), Cluster: uuid.New(), Member: 1, Functions: cluster.Functions(nsm.Functions()),
		})
		if err != nil {
			return nil, err
		}
		defer n.Close()
		nodes[i] = n
	}
	client := cluster.NewClient(nodes[0])
	host := nsm.NewClient(client, client)
	messages := []nsm.Message{{Kind: nsm.MessageCreateNamespace, Namespace: 1}}
	for osd := range uint64(commitOSDs) {
		messages = append(messages, nsm.Message{Kind: nsm.MessageLinkOSD, OSD: 1 + osd, Node: fmt.Sprint("node", osd%3)})
	}
	if _, err := host.Deliver(ctx, 1, messages); err != nil {
		return nil, err
	}
	var next atomic.Uint64
	turn := func(f *figures, do func(n uint64) error) error {
		ctx, cancel := context.WithTimeout(ctx, commitTurn)
		defer cancel()
		var done atomic.Uint64
		start := time.Now()
		err := side(commitClients, func(int) error {
			for ctx.Err() == nil {
				if err := do(next.Add(1)); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		})
		f.add(one{figure: float64(done.Load()) / 1000 / time.Since(start).Seconds()})
		return err
	}
	set := func(size int) func(uint64) error {
		value := make([]byte, size)
		return func(n uint64) error {
			_, err := nodes[1].Do(ctx, new(arakoon.Sequence).Set(fmt.Appendf(nil, "bare/%016x", n), value))
			return err
		}
	}
	same, small := set(setSize), set(256)
	commits, sets, smalls := figures{Name: ours}, figures{Name: "set of its size"}, figures{Name: "set of 256 bytes"}
	for range 10 * r.options.rounds {
		err := errors.Join(turn(&sets, same), turn(&commits, func(n uint64) error {
			_, err := host.Put(ctx, 1, nsm.Create, 0, commit(n))
			return err
		}), turn(&smalls, small))
		if err != nil {
			return nil, err
		}
	}
	return []row{
		{Case: c.name, Unit: c.unit, Ours: commits, Peer: &sets, Least: 0.7, Note: fmt.Sprintf("a set of %d bytes", setSize)},
		{Case: "  beside a small set", Unit: c.unit, Ours: commits, Peer: &smalls, Note: "reported"},
	}, nil
}
