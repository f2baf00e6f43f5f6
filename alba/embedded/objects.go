package embedded

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"time"

	"openvstorage/alba/health"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
)

// Object is the state of an object, for people. Sizes are in bytes.
type Object struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"`
	Size    uint64    `json:"size"`
	Stored  uint64    `json:"stored"`
	Version uint64    `json:"version"`
	Put     time.Time `json:"put"`
	Policy  string    `json:"policy"` // "inline" if its manifest holds it
	Width   int       `json:"width"`  // fragments of its weakest chunk
	Full    bool      `json:"full_width"`
	// State counts the fragments that are on disks which can be read now.
	State  health.State `json:"state"`
	Chunks []Chunk      `json:"chunks,omitempty"`
}

// Chunk is a chunk of an object.
type Chunk struct {
	Plain     uint32     `json:"plain"`
	Stored    uint32     `json:"stored"`
	Fragments []Fragment `json:"fragments"`
}

// Fragment is a fragment and how it is.
type Fragment struct {
	OSD    uint64 `json:"osd"`
	Key    string `json:"key"`
	Length uint32 `json:"length"`
	State  string `json:"state"` // ok, or why it cannot be read
}

// Objects calls fn for each object of a namespace whose name begins with prefix
// and is above after, in order of name, until fn returns false.
func (i *Inventory) Objects(ctx context.Context, namespace, prefix, after string, fn func(Object) bool) error {
	rec, err := i.abm.Namespace(ctx, namespace, userfn.Consistent)
	if err != nil {
		return err
	}
	for {
		page, err := i.nsm.List(ctx, rec.Number, prefix, after, nsm.MaxPage, userfn.Consistent)
		if err != nil {
			return err
		}
		for j := range page {
			if !fn(i.describe(&page[j])) {
				return nil
			}
		}
		if len(page) < nsm.MaxPage {
			return nil
		}
		after = page[len(page)-1].Name
	}
}

// describe tells of an object from its record, without asking disks.
func (i *Inventory) describe(o *nsm.Object) Object {
	v := Object{
		Name: o.Name, ID: hex.EncodeToString(o.ID[:]), Size: o.Size, Stored: o.Stored(), Version: o.Version,
		Put: time.Unix(0, o.Time).UTC(), Policy: "inline", Full: true, State: health.OK,
	}
	if len(o.Chunks) > 0 {
		gone := make(map[uint64]bool)
		for _, c := range o.Chunks {
			for _, f := range c.Fragments {
				if _, there := i.fleet.Alive(f.OSD); !there {
					gone[f.OSD] = true
				}
			}
		}
		v.State = healthOf(o, gone, nil).Judge()
		k := o.Bucket()
		v.Policy = fmt.Sprintf("%d,%d,%d,%d", o.Policy.K, o.Policy.M, o.Policy.C, o.Policy.X)
		v.Width, v.Full = int(k.Present), k.Full()
	}
	return v
}

// Object returns an object with its chunks and the states of their fragments.
func (i *Inventory) Object(ctx context.Context, namespace, name string) (Object, error) {
	rec, err := i.abm.Namespace(ctx, namespace, userfn.Consistent)
	if err != nil {
		return Object{}, err
	}
	o, err := i.nsm.Get(ctx, rec.Number, name, userfn.Consistent)
	if err != nil {
		return Object{}, err
	}
	v := i.describe(o)
	m, err := manifest.Decode(o.Manifest)
	if err != nil {
		return v, fmt.Errorf("manifest of object %s: %w", name, err)
	}
	least := math.MaxInt
	for at, c := range m.Chunks {
		k := Chunk{Plain: c.Plain, Stored: c.Stored}
		good := 0
		for j, f := range c.Fragments {
			ok, text := i.fragment(ctx, m, at, j).Judge()
			if ok {
				good++
			}
			k.Fragments = append(k.Fragments, Fragment{OSD: f.OSD, Key: m.Key(at, j).String(), Length: f.Length, State: text})
		}
		least = min(least, good)
		v.Chunks = append(v.Chunks, k)
	}
	if len(m.Chunks) > 0 { // asked, not only looked up
		v.State = health.Object{K: int(o.Policy.K), Width: o.Policy.Width(), Readable: least}.Judge()
	}
	return v, nil
}

// fragment asks the disk of a fragment for it, without reading it.
func (i *Inventory) fragment(ctx context.Context, m *manifest.Manifest, chunk, fragment int) health.Fragment {
	f := m.Chunks[chunk].Fragments[fragment]
	h := health.Fragment{Nowhere: f.OSD == 0, Want: f.Length}
	d := i.fleet.Disk(f.OSD)
	if h.Nowhere || d == nil {
		h.DiskLost = true
		return h
	}
	info, err := d.Stat(ctx, [][]byte{m.Key(chunk, fragment).Append(nil)})
	if err != nil {
		h.Err = err.Error()
		return h
	}
	h.Found, h.Size = info[0].Found, info[0].Size
	h.Bad = i.work.KnownBad(m.Namespace, m.Name, m.Object, chunk, fragment, f.OSD)
	return h
}

// Manifest returns the encoded manifest of an object.
func (i *Inventory) Manifest(ctx context.Context, namespace, name string) ([]byte, error) {
	rec, err := i.abm.Namespace(ctx, namespace, userfn.Consistent)
	if err != nil {
		return nil, err
	}
	o, err := i.nsm.Get(ctx, rec.Number, name, userfn.Consistent)
	if err != nil {
		return nil, err
	}
	return o.Manifest, nil
}
