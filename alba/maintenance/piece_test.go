package maintenance

import (
	"fmt"
	"testing"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/policy"
	"openvstorage/internal/format/golden"
)

var somePieces = []piece{
	{listing: listing{ns: 7, bucket: nsm.Bucket{K: 4, M: 2, Present: 5}}, after: "a", until: "b", turn: policy.Safety{Disks: 1}},
	{listing: listing{ns: 1 << 40, disk: 9}, turn: policy.Lost},
	{listing: listing{ns: 1, disk: 2}, until: "z", turn: policy.Safety{Disks: 3, Nodes: 2, Zones: 1}},
}

// What waits in the queue is read by agents of later releases.
func TestPieceGolden(t *testing.T) {
	var text []byte
	for _, p := range somePieces {
		b, err := record.Encode(1, &p)
		if err != nil {
			t.Fatal(err)
		}
		var back piece
		if err := record.Decode(b, 1, &back); err != nil || back != p {
			t.Fatalf("%+v, %v", back, err)
		}
		text = fmt.Appendf(text, "%x %s\n", b, p.name())
	}
	golden.CheckText(t, "testdata/piece-v1.txt", text)
}

// Whatever is in the queue, it is a piece or refused.
func FuzzPiece(f *testing.F) {
	for _, p := range somePieces {
		b, err := record.Encode(1, &p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, again piece
		if record.Decode(b, 1, &p) != nil {
			return
		}
		c, err := record.Encode(1, &p)
		if err != nil {
			t.Fatal(err)
		}
		if err := record.Decode(c, 1, &again); err != nil || again != p {
			t.Fatalf("%+v is %+v, %v", p, again, err)
		}
	})
}

// The pieces of a listing have each of its objects once, in order, and none is too large.
func TestCutter(t *testing.T) {
	var pieces []piece
	c := cutter{piece: piece{listing: listing{ns: 1, disk: 2}}, put: func(p *piece) error {
		pieces = append(pieces, *p)
		return nil
	}}
	name := func(i int) string { return fmt.Sprintf("%04d", i) }
	const all = 1000
	for i := range all {
		o := &nsm.Object{Name: name(i), Chunks: []nsm.Chunk{{Length: 1 << 20, Fragments: []nsm.Fragment{{OSD: 1}, {OSD: 2}}}}}
		if err := c.add(o); err != nil {
			t.Fatal(err)
		}
		if i%200 == 199 { // the end of a page
			if err := c.cut(o.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.cut(""); err != nil {
		t.Fatal(err)
	}
	for i := range all {
		in := 0
		for j := range pieces {
			if pieces[j].has(name(i)) {
				in++
			}
		}
		if in != 1 {
			t.Fatalf("object %d is in %d pieces", i, in)
		}
	}
	names := make(map[string]bool)
	for i := range pieces {
		names[pieces[i].name()] = true
	}
	if len(names) != len(pieces) || len(pieces) < 10 {
		t.Errorf("%d pieces with %d names", len(pieces), len(names))
	}
}
