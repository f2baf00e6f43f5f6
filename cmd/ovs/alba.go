package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"openvstorage/cmd/ovs/clustercmd"
	"openvstorage/cmd/ovs/proxycmd"
	"openvstorage/internal/control"
	"openvstorage/internal/counted"
)

// albaCommands are the commands of `ovs alba`: a noun of the backend each.
type albaCommands struct{ *app }

func (cmds albaCommands) group() *cobra.Command {
	return group("alba", "look at and change the backend: disks, objects, presets",
		backendCommands{cmds.app}.group(), osdCommands{cmds.app}.group(), namespaceCommands{cmds.app}.group(), objectCommands{cmds.app}.group(), presetCommands{cmds.app}.group(), proxycmd.Command(clustercmd.Tools{Print: cmds.print, Group: group, Wants: wants}))
}

// backendCommands are the commands of `ovs alba backend`.
type backendCommands struct{ *app }

func (cmds backendCommands) group() *cobra.Command {
	return group("backend", "the backend as a whole", cmds.status(), cmds.check(), cmds.resumeDeletion())
}

func (cmds backendCommands) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "show disks, fill and health, and how many more disks may die",
		Long: `ovs alba backend status says how the backend is.

Health is "ok" if every disk is there and does what it should, and every object
has its full width; "degraded" if something is not as it should be and all can be
read; "unreadable" if something cannot be read now: an object has too few
fragments on disks that are there, a read failed, or one of the managers does not
know a namespace that another knows. The reasons say what.`,
		Args:              wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			s, err := client.BackendStatus(c.Context())
			if err != nil {
				return err
			}
			return cmds.print(s, func(w io.Writer) { writeStatus(w, s) })
		}),
	}
}

func writeStatus(w io.Writer, s control.BackendStatus) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("backend", "%s", s.ID)
	row("health", "%s", s.Health)
	for _, reason := range s.Reasons {
		row("reason", "%s", reason)
	}
	row("disks", "%d, %d missing", s.Disks, s.Missing)
	// "Disks" that share a file system die together, which the count of disks hides.
	if there := s.Disks - s.Missing; s.FileSystems > 0 && s.FileSystems < there {
		row("file systems", "%d for %s: those on one are lost together", s.FileSystems, counted.Of(there, "disk", "disks"))
	}
	row("disks that may die", "%s", mayDie(s.MayDie))
	row("objects", "%d in %s", s.Objects, counted.Of(s.Namespaces, "namespace", "namespaces"))
	row("objects below full width", "%d", s.Narrow)
	for _, g := range s.Groups {
		row("group", "%s: %s", g.Name, g.State)
	}
	row("size", "%s", human(s.Size))
	row("stored", "%s in fragments", human(s.Stored))
	row("used", "%s of %s%s", human(s.Used), human(s.Capacity), percent(s.Used, s.Capacity))
	m := s.Maintenance
	row("made again", "%s, %s", counted.Of(m.Repaired, "fragment", "fragments"), human(m.RepairedBytes))
	if m.Moved > 0 {
		row("moved", "%s, %s", counted.Of(m.Moved, "fragment", "fragments"), human(m.MovedBytes))
	}
	row("to be made again", "%s for a repair, %d for a disk that can take a fragment, %d for disks to read from", counted.Of(m.Waiting, "object waits", "objects wait"), m.NoPlace, m.Unreadable)
	row("deleted", "%s, %s", counted.Of(m.Deleted, "fragment", "fragments"), counted.Of(m.Orphans, "of them an orphan", "of them orphans"))
	row("scrubbed", "%s, %s, %d bad or missing, by reads too", counted.Of(m.Scrubbed, "fragment", "fragments"), human(m.ScrubbedBytes), m.Bad)
	row("scrub", "%s", scrubText(s.Scrub))
}

// scrubText says how far the scrub is.
func scrubText(s control.Scrub) string {
	if s.Seconds == 0 {
		return "off"
	}
	if s.Began == nil || s.Ends == nil {
		return "not begun"
	}
	last := "none yet"
	if s.Ended != nil {
		last = when(*s.Ended)
	}
	return fmt.Sprintf("%s of %s%s, %d bad, since %s, to end by %s; last whole round: %s",
		human(s.Bytes), human(s.Of), percent(s.Bytes, s.Of), s.Bad, when(*s.Began), when(*s.Ends), last)
}

// mayDie says in words how many more disks may die before data is lost. Below zero, some
// data cannot be read already.
func mayDie(n int) string {
	switch {
	case n > 0:
		return fmt.Sprintf("%d more, whichever they are", n)
	case n == 0:
		return "0: another would take objects with it"
	}
	return fmt.Sprintf("%d: so many have to come back to read all", n)
}

// percent says how full something is; "" if its capacity is not known.
func percent(used, capacity uint64) string {
	if capacity == 0 {
		return ""
	}
	return fmt.Sprintf(" (%.0f %%)", 100*float64(used)/float64(capacity))
}
