package embedded

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"openvstorage/alba/abm"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"

	"github.com/google/uuid"
)

// hostName is the name of the only NSM host.
const hostName = "nsm-0"

// setup makes a backend at the first start, and compares the options of a later start
// with what is there.
type setup struct {
	layout
	opt    *Options
	abm    *abm.Client
	places *places
	mounts *mountCheck
}

// run makes the backend at the first start, goes on with a first start that was cut
// short, or refuses options that contradict the backend that is there.
func (s *setup) run(ctx context.Context) error {
	rec, err := s.abm.Backend(ctx, userfn.Consistent)
	switch {
	case errors.Is(err, abm.ErrNotFound):
		if err := s.abm.Init(ctx, s.opt.ID); err != nil {
			return err
		}
	case err != nil:
		return err
	case uuid.UUID(rec.ID) != s.opt.ID:
		return fmt.Errorf("%s holds backend %s, and the data directory is %s: one of them was copied from elsewhere", path.Join(s.opt.Dir, "arakoon"), uuid.UUID(rec.ID), s.opt.ID)
	}
	if rec.Default == "" { // the last step of the first start has not been done
		return s.create(ctx)
	}
	return s.compare(ctx, rec)
}

// create is the first start. An earlier start that was cut short may have done any of
// its steps.
func (s *setup) create(ctx context.Context) error {
	p := s.opt.preset()
	data, err := p.Append(nil)
	if err != nil {
		return err
	}
	known, err := maintenance.AllOSDs(ctx, s.abm)
	if err != nil {
		return err
	}
	known = s.mine(known)
	if err := s.checkPlaces(ctx); err != nil {
		return err
	}
	for _, endpoint := range s.endpoints() {
		i := slices.IndexFunc(known, func(o abm.OSD) bool { return string(o.Endpoint) == endpoint })
		if i < 0 {
			o := abm.OSD{LongID: uuid.New(), Node: s.node(), Endpoint: []byte(endpoint)}
			if err := s.abm.RegisterOSD(ctx, o); err != nil {
				return err
			}
			known, i = append(known, o), len(known)
		}
		if err := s.places.makeASD(ctx, uuid.UUID(known[i].LongID), endpoint); err != nil {
			return err
		}
		if _, err := s.abm.ClaimOSD(ctx, known[i].LongID); err != nil {
			return err
		}
	}
	// Registered disks that are not wanted now would be missing for ever.
	if len(known) > len(s.endpoints()) {
		return fmt.Errorf("%w: the first start was cut short after it had registered %d disks, and %d are wanted now: give the flags that it had, or an empty data directory", ErrOther, len(known), len(s.endpoints()))
	}
	// A start that was cut short may have left the preset, made with other flags.
	if old, err := s.abm.Preset(ctx, p.Name, userfn.Consistent); err == nil {
		if string(old.Data) != string(data) {
			_, err = s.abm.PutPreset(ctx, p.Name, old.Version, data)
		}
		if err != nil {
			return err
		}
	} else if _, err := s.abm.PutPreset(ctx, p.Name, 0, data); err != nil {
		return err
	}
	return s.abm.SetDefaultPreset(ctx, p.Name)
}

// checkPlaces checks the places of all ASDs that the first start is to make, before it
// makes any. ASDs that an earlier start made, which was cut short, stay where they are.
func (s *setup) checkPlaces(ctx context.Context) error {
	if s.opt.AllowUnmounted {
		return nil
	}
	for _, dir := range s.opt.Dirs {
		if id, err := s.places.identity(ctx, dir); err == nil && id.Owner == s.opt.ID {
			continue
		}
		if err := s.mounts.check(dir); err != nil {
			return err
		}
	}
	return nil
}

// endpoints are those of the ASDs of a new backend: the directories that were given,
// or directories under DIR/asd.
func (s *setup) endpoints() []string {
	if len(s.opt.Dirs) > 0 {
		return s.opt.Dirs
	}
	list := make([]string, s.opt.wanted())
	for i := range list {
		list[i] = fmt.Sprintf("asd/%d", i)
	}
	return list
}

// compare refuses options that contradict what was recorded.
func (s *setup) compare(ctx context.Context, rec abm.Backend) error {
	all, err := maintenance.AllOSDs(ctx, s.abm)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(s.mine(all), func(o abm.OSD) bool { return o.State == abm.OSDLost || o.Number == 0 })
	if n := s.opt.ASDs; n > 0 && n != len(all) {
		return fmt.Errorf("%w: this data directory has %d ASDs, not %d: leave --asds out, and add or replace disks with `ovs alba osd`", ErrOther, len(all), n)
	}
	if len(s.opt.Dirs) > 0 {
		if err := s.places.move(ctx, all); err != nil {
			return err
		}
	}
	record, err := s.abm.Preset(ctx, rec.Default, userfn.Consistent)
	if err != nil {
		return err
	}
	p, err := preset.Decode(record.Data)
	if err != nil {
		return fmt.Errorf("preset %q: %w", rec.Default, err)
	}
	if len(s.opt.Policies) > 0 && !slices.Equal(s.opt.Policies, p.Policies) {
		return fmt.Errorf("%w: this data directory has the policies %s, not %s: leave --policy out, or make a preset with `ovs alba preset create`",
			ErrOther, show(p.Policies), show(s.opt.Policies))
	}
	if s.opt.Preset != nil {
		want := *s.opt.Preset
		want.Policies, want.Version = p.Policies, p.Version // compared above
		if !want.Equal(p) {
			return fmt.Errorf("%w: this data directory has the default preset %q with other settings: leave --preset out, or make one of another name with `ovs alba preset create`", ErrOther, p.Name)
		}
	}
	return nil
}

// show is how people are told of policies.
func show(list []policy.Policy) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
	}
	return strings.Join(texts, " ")
}
