package records_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/alba/records"
	"openvstorage/internal/format"

	"github.com/google/uuid"
)

var ctx = context.Background()

// coded is an object of two chunks, inline one of a few bytes.
func coded() *manifest.Manifest {
	m := &manifest.Manifest{
		Namespace: 7, Name: "sco-000000001", Object: manifest.ObjectID{1, 2, 3}, Size: 9000, Time: 5, Epoch: 6,
		Policy: policy.Policy{K: 2, M: 1, C: 2, X: 3}, Scheme: preset.Default(3).Scheme,
	}
	m.Scheme.Cipher, m.Scheme.Key, m.Scheme.BlockLog2 = preset.CipherNone, 0, 12
	for _, n := range []uint32{8192, 808} {
		c := manifest.Chunk{Plain: n, Stored: n, Shard: manifest.ShardLength(n, 2), Dense: true}
		for j := range uint32(3) {
			c.Fragments = append(c.Fragments, manifest.Fragment{OSD: uint64(j) + 1, Length: c.Shard, CRC: n + j})
		}
		m.Chunks = append(m.Chunks, c)
	}
	return m
}

func inline() *manifest.Manifest {
	m := coded()
	m.Inlined, m.Size, m.Chunks = true, 3, []manifest.Chunk{{Plain: 3, Stored: 3, Dense: true}}
	m.Inline, m.CRCs = []byte("abc"), []uint32{9}
	return m
}

// The stored bytes never change. What they say comes back, without places.
func TestGolden(t *testing.T) {
	for _, x := range []struct {
		m    *manifest.Manifest
		want string
	}{
		{coded(), goldenCoded}, {inline(), goldenInline},
	} {
		r := records.Of("vdisk", x.m, len(x.m.Chunks)-1, [32]byte{4}, 11, x.m.Inlined)
		b, err := r.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b); got != x.want {
			t.Errorf("%s", got)
		}
		back, err := records.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if back.Space != "vdisk" || back.Version != 11 || back.Exact != x.m.Inlined || back.Hash != [32]byte{4} || back.Manifest.Name != x.m.Name || back.Manifest.Size != x.m.Size {
			t.Errorf("%+v", back)
		}
		if !x.m.Inlined && (back.Chunk != 1 || back.Chunks != 2 || back.Manifest.Chunks[0].Fragments[2] != (manifest.Fragment{Length: 4096, CRC: 810})) {
			t.Errorf("%+v", back)
		}
		for i := range b { // no bit of it may change
			bad := bytes.Clone(b)
			bad[i] ^= 0x10
			if _, err := records.Decode(bad); !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrNewer) {
				t.Errorf("byte %d: %v", i, err)
			}
		}
	}
}

// The longest names and the widest policy fit in Max, a vDisk's in 512 bytes.
func TestSize(t *testing.T) {
	m := coded()
	if b, err := records.Of(strings.Repeat("v", 36), m, 0, [32]byte{}, 1, true).Append(nil); err != nil || len(b) > 512 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	m.Name, m.Policy = strings.Repeat("n", 255), policy.Policy{K: 60, M: 4, C: 60, X: 64}
	m.Chunks[0].Fragments = make([]manifest.Fragment, 64)
	b, err := records.Of(strings.Repeat("v", 255), m, 0, [32]byte{}, 1, true).Append(nil)
	if err != nil || len(b) != records.Max || records.Max > osd.BlockSize {
		t.Errorf("%d bytes of %d, %v", len(b), records.Max, err)
	}
	m.Name = ""
	if _, err := records.Of("v", m, 0, [32]byte{}, 1, true).Append(nil); err == nil {
		t.Error("an object without a name")
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []*manifest.Manifest{coded(), inline()} {
		b, _ := records.Of("vdisk", m, 0, [32]byte{}, 1, true).Append(nil)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := records.Decode(b)
		if err != nil {
			return
		}
		if again, err := r.Append(nil); err != nil || !bytes.Equal(again, b) {
			t.Errorf("% x became % x, %v", b, again, err)
		}
	})
}

// An inline object's record goes to m+1 disks, on nodes of their own if there are so many; an
// older one never replaces a newer one, and a record under another key is refused.
func TestWrite(t *testing.T) {
	disks := make(map[uint64]*osdtest.Memory)
	var list []policy.Disk
	for i := range uint64(4) {
		disks[i+1] = osdtest.NewMemory(uuid.New(), 1<<20)
		list = append(list, policy.Disk{OSD: i + 1, Node: string(rune('a' + i/2)), Capacity: 10})
	}
	apply := func(ctx context.Context, disk uint64, a []osd.Assert, u []osd.Update) error {
		return disks[disk].Apply(ctx, a, u)
	}
	m := inline()
	for _, version := range []uint64{5, 4} {
		if err := records.Of("vdisk", m, 0, [32]byte{}, version, true).Write(ctx, list, apply); err != nil {
			t.Fatal(err)
		}
	}
	key := records.InlineKey(m)
	nodes := make(map[uint64]bool)
	for n, d := range disks {
		infos, err := d.Range(ctx, nil, nil, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range infos {
			nodes[(n-1)/2] = true
			r, err := records.Read(ctx, d.Read, key, info.Size)
			if err != nil || r.Version != 5 || !bytes.Equal(r.Manifest.Inline, m.Inline) {
				t.Errorf("disk %d: %+v, %v", n, r, err)
			}
			other := manifest.InlineKey(7, "other")
			if _, err := records.Read(ctx, func(ctx context.Context, _ []byte, off uint32, p []byte, crcs []uint32) error {
				return d.Read(ctx, key.AppendRecovery(nil), off, p, crcs)
			}, other, info.Size); !errors.Is(err, format.ErrCorrupt) {
				t.Errorf("under another key: %v", err)
			}
		}
	}
	if len(nodes) != 2 {
		t.Errorf("on nodes %v", nodes)
	}
	places := records.Places(key, list)
	slices.Reverse(list)
	if !slices.Equal(places, records.Places(key, list)) || len(places) != 4 {
		t.Errorf("places %v", places)
	}
	if err := records.Of("vdisk", m, 0, [32]byte{}, 6, true).Write(ctx, list[:1], apply); !errors.Is(err, records.ErrFew) {
		t.Errorf("on one disk: %v", err)
	}
}

const (
	goldenCoded  = "0104050d0b00000000000000040000000000000000000000000000000000000000000000000000000000000002010203010100010c000200010000000000000000000000070000000000000001020300000000000000000000000000282300000000000005000000000000000600000000000000280300002803000028030000290300002a030000766469736b73636f2d303030303030303031059b18bd"
	goldenInline = "010305000b000000000000000400000000000000000000000000000000000000000000000000000000000000766469736b010002010203010100010c0000000000000000000000000007000000000000000102030000000000000000000000000003000000000000000000000000000000050000000000000006000000000000000d0001000300000073636f2d303030303030303031030000000300000000000000010000006162630900000031383790e2d7c4a9"
)
