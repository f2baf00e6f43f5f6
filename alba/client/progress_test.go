package client

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/object"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"

	"github.com/google/uuid"
)

// newWriter returns a writer over n disks in memory.
func newWriter(t *testing.T, n int) (*writer, []policy.Disk) {
	t.Helper()
	wr := &writer{fleet: fleet.New(nil), manifests: newManifests(1<<20, &keys{}), patience: time.Second, log: slog.New(slog.DiscardHandler)}
	wr.life, wr.end = context.WithCancel(t.Context())
	wr.chunks.init(4, 1<<20)
	for i := range n {
		id := uuid.New()
		d := wr.fleet.Add(uint64(i+1), id, fmt.Sprint("node", i), "disk")
		d.Attach(osdtest.NewMemory(id, 1<<30))
		if err := d.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return wr, wr.fleet.Disks()
}

// oneChunk is a manifest of one chunk whose fragments all have the same bytes.
func oneChunk(t *testing.T, wr *writer, p policy.Policy) (*manifest.Manifest, *coded) {
	t.Helper()
	x, err := wr.chunks.coder(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id, err := newObjectID()
	if err != nil {
		t.Fatal(err)
	}
	m := &manifest.Manifest{Namespace: 1, Name: "o", Object: id, Policy: p, Chunks: make([]manifest.Chunk, 1)}
	from, err := wr.chunks.take(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	wr.chunks.end(x)
	from.Coded = object.Coded{}
	for i := range p.Width() {
		data := make([]byte, osd.BlockSize)
		crcs := osd.AppendCRCs(nil, manifest.Seed(m.Object, 0, uint32(i)), 0, data)
		from.Shards, from.CRCs = append(from.Shards, data), append(from.CRCs, crcs)
		m.Chunks[0].Fragments = append(m.Chunks[0].Fragments, manifest.Fragment{OSD: policy.None, Length: osd.BlockSize, CRC: osd.TableCRC(crcs)})
	}
	return m, from
}

// At every moment a fragment is durable, or on its way to a disk, or given up. A put that looks
// between the end of a write and what follows from it must not take the fragment for one that is
// held up: it would commit a narrow object, though all disks are well.
func TestFragmentIsNeverInBetween(t *testing.T) {
	p := policy.Policy{K: 2, M: 2, C: 2, X: 1}
	wr, disks := newWriter(t, 4)
	for range 200 {
		m, from := oneChunk(t, wr, p)
		w := wr.writeChunk(m, 0, from, disks, nil)
		wr.chunks.release(from)
		for {
			got := w.progress()
			if got.prompt != got.left || got.done+got.left != p.Width() {
				t.Fatalf("%d fragments are stored and %d on their way, of which %d are held up by nothing", got.done, got.left, got.prompt)
			}
			if got.left == 0 {
				break
			}
		}
		if err := w.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.settle(&m.Chunks[0])
		if m.Present() != p.Width() {
			t.Fatalf("%d of %d fragments are entered", m.Present(), p.Width())
		}
	}
}
