package control_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/embedded"
	"openvstorage/alba/preset"
	"openvstorage/internal/control"
	"openvstorage/internal/control/controltest"
	"openvstorage/volumedriver"
)

// fakeALBA answers what the test asks for; all else is nobody's business here.
type fakeALBA struct {
	control.ALBA
	objects int
	asked   string // the namespace
}

func (f *fakeALBA) Namespaces(context.Context) ([]embedded.Namespace, error) {
	return []embedded.Namespace{{Name: "loose"}}, nil
}

func (f *fakeALBA) NamespaceInfo(_ context.Context, name string) (embedded.Namespace, error) {
	f.asked = name
	if name == "none" {
		return embedded.Namespace{}, fmt.Errorf("namespace %q: %w", name, abm.ErrNamespaceNotFound)
	}
	return embedded.Namespace{Name: name}, nil
}

func (f *fakeALBA) Objects(_ context.Context, _, _, after string, fn func(embedded.Object) bool) error {
	for i := range f.objects {
		name := fmt.Sprintf("o%05d", i)
		if name > after && !fn(embedded.Object{Name: name}) {
			return nil
		}
	}
	return nil
}

func (f *fakeALBA) OSD(context.Context, uint64) (embedded.OSD, error) {
	return embedded.OSD{}, fmt.Errorf("disk 9: %w", embedded.ErrNoOSD)
}

func (f *fakeALBA) CreatePreset(_ context.Context, p preset.Preset, _ bool) error {
	if _, err := p.Append(nil); err != nil {
		return err
	}
	return fmt.Errorf("preset %q: %w", p.Name, abm.ErrInUse)
}

func (f *fakeALBA) Presets(context.Context) ([]embedded.Preset, error) { return nil, nil }

// TestWithoutALBA: the other backend says so, in a kind of its own.
func TestWithoutALBA(t *testing.T) {
	_, c, _ := serve(t, &controltest.Host{}, nil)
	if _, err := c.BackendStatus(t.Context()); !errors.Is(err, volumedriver.ErrInvalid) {
		t.Errorf("status without ALBA: %v", err)
	}
	if _, err := c.AddOSD(t.Context(), "/x", false); !errors.Is(err, volumedriver.ErrInvalid) {
		t.Errorf("add without ALBA: %v", err)
	}
}

func TestALBA(t *testing.T) {
	ctx, host, fake := t.Context(), &controltest.Host{}, &fakeALBA{objects: 2500}
	v, err := host.Create(ctx, "disk1", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	_, c, _ := serve(t, host, func(o *control.Options) { o.ALBA = fake })

	// A namespace goes by its own name and by its vDisk's.
	for _, name := range []string{"disk1", v.ID.String()} {
		if n, err := c.Namespace(ctx, name); err != nil || n.VDisk != "disk1" || n.Name != v.ID.String() || fake.asked != v.ID.String() {
			t.Errorf("namespace %s: %+v, %v, asked for %s", name, n, err, fake.asked)
		}
	}
	if list, err := c.Namespaces(ctx); err != nil || len(list) != 1 || list[0].VDisk != "" || list[0].Name != "loose" {
		t.Errorf("namespaces: %+v, %v", list, err)
	}

	// Lists are bounded, say so, and can be gone on with.
	for _, p := range []struct {
		after string
		limit int
		want  int
		more  bool
	}{{"", 0, 1000, true}, {"", 5000, 1000, true}, {"", 7, 7, true}, {"o01999", 0, 500, false}, {"o02499", 0, 0, false}} {
		page, err := c.Objects(ctx, "disk1", "", p.after, p.limit)
		if err != nil || len(page.Objects) != p.want || page.More != p.more {
			t.Errorf("objects after %q, limit %d: %d, more %v, %v", p.after, p.limit, len(page.Objects), page.More, err)
		}
	}

	// Errors keep their kind.
	if _, err := c.Namespace(ctx, "none"); !errors.Is(err, volumedriver.ErrNotFound) {
		t.Errorf("namespace that is not there: %v", err)
	}
	if _, err := c.OSD(ctx, 9); !errors.Is(err, volumedriver.ErrNotFound) {
		t.Errorf("disk that is not there: %v", err)
	}
	if err := c.DeletePreset(ctx, "none"); !errors.Is(err, volumedriver.ErrNotFound) {
		t.Errorf("delete a preset that is not there: %v", err)
	}
	p := preset.Default(3)
	if err := c.CreatePreset(ctx, p, false); !errors.Is(err, volumedriver.ErrBusy) {
		t.Errorf("preset in use: %v", err)
	}
	p.Name = "Bad Name"
	if err := c.CreatePreset(ctx, p, false); !errors.Is(err, volumedriver.ErrInvalid) {
		t.Errorf("bad preset: %v", err)
	}
}
