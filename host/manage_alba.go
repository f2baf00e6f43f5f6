package host

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	albahere "openvstorage/alba/embedded"
	"openvstorage/alba/health"
	"openvstorage/alba/preset"
	"openvstorage/internal/control"
)

// managedALBA shows the backend of disks to the management socket.
type managedALBA struct {
	of       *albahere.Backend
	replaced func() error // why the data directory is not what it was
}

var _ control.ALBA = managedALBA{}

// Status implements control.ALBA, as the methods below do.
func (m managedALBA) Status(ctx context.Context) (control.BackendStatus, error) {
	s, err := m.of.Status(ctx)
	if replaced := m.replaced(); err == nil && replaced != nil {
		s.Reasons = append([]string{replaced.Error()}, s.Reasons...)
		if s.Health == health.OK {
			s.Health = health.Degraded
		}
	}
	return backendStatus(s), Kind(err)
}

func (m managedALBA) Check(ctx context.Context) (control.Check, error) {
	c, err := m.of.Check(ctx)
	return control.Check(c), Kind(err)
}

func (m managedALBA) Resume(ctx context.Context) (control.Check, error) {
	if err := m.replaced(); err != nil {
		return control.Check{}, Kind(err)
	}
	c, err := m.of.Resume(ctx)
	return control.Check(c), Kind(err)
}

func (m managedALBA) OSDs(ctx context.Context) ([]control.OSD, error) {
	all, err := m.of.OSDs(ctx)
	list := make([]control.OSD, len(all))
	for i, o := range all {
		list[i] = managedOSD(o)
	}
	return list, Kind(err)
}

func (m managedALBA) OSD(ctx context.Context, number uint64) (control.OSD, error) {
	o, err := m.of.OSD(ctx, number)
	return managedOSD(o), Kind(err)
}

func (m managedALBA) CheckPlace(dir string) error { return Kind(m.of.CheckPlace(dir)) }

func (m managedALBA) AddOSD(ctx context.Context, dir string) (uint64, error) {
	if err := m.replaced(); err != nil {
		return 0, Kind(err)
	}
	number, err := m.of.AddOSD(ctx, dir)
	return number, Kind(err)
}

func (m managedALBA) ReplaceOSD(ctx context.Context, number uint64, dir string) (uint64, error) {
	if err := m.replaced(); err != nil {
		return 0, Kind(err)
	}
	number, err := m.of.ReplaceOSD(ctx, number, dir)
	return number, Kind(err)
}

func (m managedALBA) RemoveOSD(ctx context.Context, number uint64) error {
	if err := m.replaced(); err != nil {
		return Kind(err)
	}
	return Kind(m.of.RemoveOSD(ctx, number))
}

func (m managedALBA) Namespaces(ctx context.Context) ([]control.NamespaceInfo, error) {
	all, err := m.of.Namespaces(ctx)
	list := make([]control.NamespaceInfo, len(all))
	for i, n := range all {
		list[i] = namespaceInfo(n)
	}
	return list, Kind(err)
}

func (m managedALBA) NamespaceInfo(ctx context.Context, name string) (control.NamespaceInfo, error) {
	n, err := m.of.NamespaceInfo(ctx, name)
	return namespaceInfo(n), Kind(err)
}

func (m managedALBA) Objects(ctx context.Context, namespace, prefix, after string, fn func(control.Object) bool) error {
	return Kind(m.of.Objects(ctx, namespace, prefix, after, func(o albahere.Object) bool { return fn(managedObject(o)) }))
}

func (m managedALBA) Object(ctx context.Context, namespace, name string) (control.Object, error) {
	o, err := m.of.Object(ctx, namespace, name)
	return managedObject(o), Kind(err)
}

func (m managedALBA) Manifest(ctx context.Context, namespace, name string) ([]byte, error) {
	b, err := m.of.Manifest(ctx, namespace, name)
	return b, Kind(err)
}

func (m managedALBA) Presets(ctx context.Context) ([]control.Preset, error) {
	all, err := m.of.Presets(ctx)
	if err != nil {
		return nil, Kind(err)
	}
	list := make([]control.Preset, len(all))
	for i, p := range all {
		b, err := json.Marshal(p.Preset)
		if err != nil {
			return nil, fmt.Errorf("preset %q: %w", p.Name, err)
		}
		list[i] = control.Preset{Default: p.Default, Namespaces: p.Namespaces, Preset: b}
	}
	return list, nil
}

func (m managedALBA) StorageOf(ctx context.Context, namespace string) (control.Storage, error) {
	p, err := m.of.PresetOf(ctx, namespace)
	return control.Storage{Preset: p.Name, Cipher: p.Scheme.Cipher.String(), Key: p.Scheme.Key, Buffer: preset.CipherNone.String()}, Kind(err)
}

func (m managedALBA) CreatePreset(ctx context.Context, text json.RawMessage, asDefault bool) error {
	if err := m.replaced(); err != nil {
		return Kind(err)
	}
	var p preset.Preset
	if len(text) > 0 { // else it is refused as what it is: nothing
		if err := json.Unmarshal(text, &p); err != nil {
			return fmt.Errorf("%w: request: %w", control.ErrInvalid, err)
		}
	}
	return Kind(m.of.CreatePreset(ctx, p, asDefault))
}

// DeletePreset deletes a preset. To the ABM a preset that is not there is deleted
// already. Here that is an error: whoever names it by hand has misspelt it.
func (m managedALBA) DeletePreset(ctx context.Context, name string) error {
	if err := m.replaced(); err != nil {
		return Kind(err)
	}
	all, err := m.of.Presets(ctx)
	if err != nil {
		return Kind(err)
	}
	if !slices.ContainsFunc(all, func(p albahere.Preset) bool { return p.Name == name }) {
		return fmt.Errorf("preset %q: %w", name, control.ErrNotFound)
	}
	return Kind(m.of.DeletePreset(ctx, name))
}

func backendStatus(s albahere.Status) control.BackendStatus {
	out := control.BackendStatus{
		ID: s.ID, Health: string(s.Health), Reasons: s.Reasons, Disks: s.Disks, Missing: s.Missing, Used: s.Used, Capacity: s.Capacity,
		FileSystems: s.FileSystems, Namespaces: s.Namespaces, Objects: s.Objects, Size: s.Size, Stored: s.Stored,
		Narrow: s.Narrow, Failed: s.Failed, MayDie: s.MayDie, Scrub: control.Scrub(s.Scrub),
		Maintenance: control.MaintenanceStats(s.Maintenance), Client: control.ClientStats(s.Client),
	}
	out.Groups = make([]control.Group, len(s.Groups))
	for i, g := range s.Groups {
		out.Groups[i] = control.Group{Name: g.Name, State: string(g.State), Reason: g.Reason}
	}
	return out
}

func managedOSD(o albahere.OSD) control.OSD {
	return control.OSD{
		Number: o.Number, ID: o.ID, Dir: o.Dir, Node: o.Node, State: string(o.State), Reason: o.Reason, Since: o.Since, Used: o.Used,
		Capacity: o.Capacity, FileSystem: o.FileSystem, Fragments: o.Fragments, Bytes: o.Bytes, Obsolete: o.Obsolete, Replaces: o.Replaces,
		Reads: o.Reads, Writes: o.Writes, Errors: o.Errors, Refused: o.Refused, Corrupt: o.Corrupt, Scrub: (*control.Scrub)(o.Scrub),
	}
}

func namespaceInfo(n albahere.Namespace) control.NamespaceInfo {
	out := control.NamespaceInfo{
		Name: n.Name, Number: n.Number, Preset: n.Preset, Host: n.Host, State: string(n.State), Reason: n.Reason, Created: n.Created,
		Objects: n.Objects, Size: n.Size, Stored: n.Stored, Epochs: (*control.Epochs)(n.Epochs),
	}
	for _, b := range n.Buckets {
		out.Buckets = append(out.Buckets, control.BucketCount{K: b.K, M: b.M, Present: b.Present, Objects: b.Objects})
	}
	for _, o := range n.OSDs {
		out.OSDs = append(out.OSDs, control.OSDUsage{OSD: o.OSD, Fragments: o.Fragments, Bytes: o.Bytes})
	}
	return out
}

func managedObject(o albahere.Object) control.Object {
	out := control.Object{
		Name: o.Name, ID: o.ID, Size: o.Size, Stored: o.Stored, Version: o.Version, Put: o.Put, Policy: o.Policy,
		Width: o.Width, Full: o.Full, State: string(o.State),
	}
	for _, c := range o.Chunks {
		chunk := control.Chunk{Plain: c.Plain, Stored: c.Stored, Fragments: make([]control.Fragment, len(c.Fragments))}
		for i, f := range c.Fragments {
			chunk.Fragments[i] = control.Fragment(f)
		}
		out.Chunks = append(out.Chunks, chunk)
	}
	return out
}
