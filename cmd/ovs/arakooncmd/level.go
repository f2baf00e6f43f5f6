package arakooncmd

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

// newest is what stands for the newest level that all members know.
const newest = "newest"

func (cmds commands) level() *cobra.Command {
	all := false
	c := &cobra.Command{
		Use:   "level [GROUP|--all [LEVEL]]",
		Short: "show the levels of groups and what each member knows, or raise groups to a level",
		Long: `ovs arakoon level shows the level of each group: what all its members can read, and so
what may be used in it. KNOWS is the newest level that the release knows which a
member's host runs now.

With a LEVEL, a number or "newest", it raises the group, or with --all all groups,
after an upgrade of all hosts. That is for good: from then on a release that does not
know the level can hold no member, and a host that runs one is refused. While a member
or a host is away, or runs an older release, nothing is raised, and it is named. Until
then every host can go back to the release before.`,
		Args:              cobra.MaximumNArgs(2),
		ValidArgsFunction: cmds.groupsOnly,
		RunE: cmds.asks(func(c *cobra.Command, client *control.GroupsClient, args []string) error {
			group, to, err := cmds.levelArgs(c, all, args)
			if err != nil {
				return err
			}
			var l control.ArakoonLevels
			if to == "" {
				l, err = client.Levels(c.Context())
			} else {
				level, _ := strconv.ParseUint(to, 10, 32) // 0: the newest
				l, err = client.Raise(c.Context(), group, uint32(level))
			}
			if err != nil {
				return err
			}
			if l, err = only(l, group); err != nil {
				return err
			}
			return cmds.Print(l, func(w io.Writer) { writeLevels(w, l) })
		}),
	}
	c.Flags().BoolVar(&all, "all", false, "raise all groups")
	return c
}

// levelArgs are the group, "" for all, and the level that it is to be raised to, "" to show it.
func (cmds commands) levelArgs(c *cobra.Command, all bool, args []string) (group, to string, err error) {
	switch {
	case all && len(args) == 1:
		to = args[0]
	case all:
		return "", "", cmds.Usage("%s --all takes the level that all groups are to be raised to: a number, or %s", c.CommandPath(), newest)
	case len(args) == 2:
		group, to = args[0], args[1]
	case len(args) == 1:
		group = args[0]
	}
	if n, err := strconv.ParseUint(to, 10, 32); to != "" && to != newest && (err != nil || n == 0) {
		return "", "", cmds.Usage("%s: level %q is no number from 1 on, and not %q", c.CommandPath(), to, newest)
	}
	return group, to, nil
}

// only leaves one group of the answer, all of them if group is "".
func only(l control.ArakoonLevels, group string) (control.ArakoonLevels, error) {
	if group == "" {
		return l, nil
	}
	var names []string
	for _, g := range l.Groups {
		if g.Group == group {
			l.Groups = []control.ArakoonLevel{g}
			return l, nil
		}
		names = append(names, g.Group)
	}
	return l, fmt.Errorf("group %q: %w; there are %s", group, control.ErrNotFound, strings.Join(names, ", "))
}

func writeLevels(w io.Writer, l control.ArakoonLevels) {
	fmt.Fprintln(w, "GROUP\tLEVEL\tMEMBER\tHOST\tKNOWS")
	for _, g := range l.Groups {
		for _, m := range g.Members {
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", g.Group, g.Level, m.Member, m.Host, knows(m))
		}
	}
	for _, h := range l.Hosts {
		fmt.Fprintf(w, "-\t-\t-\t%s\t%s\n", h.Host, knows(h))
	}
	if text := raisable(l); text != "" {
		fmt.Fprintf(w, "\n%s\n", text)
	}
}

func knows(k control.LevelKnown) string {
	if k.Error != "" {
		return "? " + k.Error
	}
	return strconv.FormatUint(uint64(k.Knows), 10)
}

// raisable says that groups can be raised, "" if they cannot.
func raisable(l control.ArakoonLevels) string {
	for _, g := range l.Groups {
		if g.Level < l.Raise {
			return fmt.Sprintf("All know level %d: ovs arakoon level --all %s raises the groups to it, for good.", l.Raise, newest)
		}
	}
	return ""
}
