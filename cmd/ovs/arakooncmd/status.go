package arakooncmd

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/cmd/ovs/clustercmd"
	"openvstorage/internal/control"
	"openvstorage/internal/size"
)

func (cmds commands) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status [GROUP]",
		Short: "show how the groups are, and what this host's members know of the others",
		Long: `ovs arakoon status shows each group that the running ovs up has a member of. LAG is how
many entries the slowest member lacks of what is committed, which the master alone
knows. COMPARED says whether the members' states were equal when they were compared
last: the master does that once an hour, and ovs arakoon hash at once.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cmds.groupsOnly,
		RunE: cmds.asks(func(c *cobra.Command, client *control.GroupsClient, args []string) error {
			list, err := client.Groups(c.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			return cmds.Print(list, func(w io.Writer) { writeGroups(w, list) })
		}),
	}
}

func writeGroups(w io.Writer, list []control.ArakoonGroup) {
	fmt.Fprintln(w, "GROUP\tMEMBER\tROLE\tTERM\tMASTER\tVOTERS\tAPPLIED\tLAG\tLOG\tSTATE\tMASTER SINCE\tLAST ELECTION\tCOMPARED\tNOTES")
	for _, g := range list {
		lag := "-"
		if len(g.Members) > 0 {
			most := uint64(0)
			for _, m := range g.Members {
				most = max(most, m.Lag)
			}
			lag = strconv.FormatUint(most, 10)
		}
		since, election := "-", "-"
		if g.Since != nil {
			since = clustercmd.When(*g.Since)
		}
		if g.LastElection != nil {
			election = clustercmd.When(*g.LastElection)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", g.Group, g.Member, g.Role, g.Term, leader(g.Leader), ids(g.Voters), g.Applied, lag,
			size.Bytes(g.LogBytes).Human(), size.Bytes(g.StateBytes).Human(), since, election, compared(g.Compared), notes(g))
	}
	for _, g := range list {
		if len(g.Members) < 2 {
			continue
		}
		fmt.Fprintf(w, "\n%s\tMEMBER\tZONE\tSTATE\tHEARD FROM\tMATCH\tLAG\n", g.Group)
		for _, m := range g.Members {
			heard := "no"
			if m.Active {
				heard = "yes"
			}
			zone := m.Zone
			if zone == "" {
				zone = "-"
			}
			fmt.Fprintf(w, "\t%d\t%s\t%s\t%s\t%d\t%d\n", m.Member, zone, m.State, heard, m.Match, m.Lag)
		}
	}
}

func leader(id uint64) string {
	if id == 0 {
		return "none"
	}
	return strconv.FormatUint(id, 10)
}

func ids(list []uint64) string {
	var text []string
	for _, id := range list {
		text = append(text, strconv.FormatUint(id, 10))
	}
	return strings.Join(text, ",")
}

func compared(r *control.ArakoonHashes) string {
	switch {
	case r == nil:
		return "-"
	case r.Equal:
		return "equal at " + clustercmd.When(r.Time)
	}
	return "DIFFERENT at " + clustercmd.When(r.Time)
}

// notes are what is out of the ordinary in a group.
func notes(g control.ArakoonGroup) string {
	var list []string
	if g.Obstacle != "" {
		list = append(list, g.Obstacle)
	}
	if g.Zones > 1 {
		list = append(list, fmt.Sprintf("%d zones must hold everything", g.Zones))
	}
	if g.Full {
		list = append(list, "waits for room")
	}
	if len(g.Outgoing) > 0 {
		list = append(list, "its members are being changed")
	}
	if len(g.Learners) > 0 {
		list = append(list, "learners "+ids(g.Learners))
	}
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ", ")
}

// master is what who-master, master and drop-master print.
type master struct {
	Group  string `json:"group"`
	Master uint64 `json:"master"` // 0: none is known
}

func (cmds commands) printMasters(list []master) error {
	return cmds.Print(list, func(w io.Writer) {
		for _, m := range list {
			fmt.Fprintf(w, "%s\t%s\n", m.Group, leader(m.Master))
		}
	})
}

func (cmds commands) whoMaster() *cobra.Command {
	return &cobra.Command{
		Use:               "who-master [GROUP]",
		Short:             "show which member leads",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cmds.groupsOnly,
		RunE: cmds.asks(func(c *cobra.Command, client *control.GroupsClient, args []string) error {
			groups, err := client.Groups(c.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			var list []master
			for _, g := range groups {
				list = append(list, master{g.Group, g.Leader})
			}
			return cmds.printMasters(list)
		}),
	}
}

func (cmds commands) dropMaster() *cobra.Command {
	return &cobra.Command{
		Use:               "drop-master GROUP",
		Short:             "have the master give the lead to the best other member",
		Args:              cmds.Wants("GROUP"),
		ValidArgsFunction: cmds.groupsOnly,
		RunE: cmds.asks(func(c *cobra.Command, client *control.GroupsClient, args []string) error {
			leads, err := client.Transfer(c.Context(), args[0], 0)
			if err != nil {
				return err
			}
			return cmds.printMasters([]master{{args[0], leads}})
		}),
	}
}

func (cmds commands) master() *cobra.Command {
	return &cobra.Command{
		Use:               "master GROUP MEMBER",
		Short:             "have the master give the lead to a member",
		Args:              cmds.Wants("GROUP", "MEMBER"),
		ValidArgsFunction: cmds.groupsOnly,
		RunE: func(c *cobra.Command, args []string) error {
			to, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil || to == 0 {
				return cmds.Usage("%s: member %q is no number; see ovs arakoon status", c.CommandPath(), args[1])
			}
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			leads, err := control.OfGroups(client).Transfer(c.Context(), args[0], to)
			if err != nil {
				return err
			}
			return cmds.printMasters([]master{{args[0], leads}})
		},
	}
}

func (cmds commands) hash() *cobra.Command {
	return &cobra.Command{
		Use:   "hash GROUP",
		Short: "compare the states of a group's members at one revision",
		Long: `ovs arakoon hash has every member of a group hash its state at the same entry of the
log, and compares the hashes. It fails if they differ: then take a backup, compare
what ovs arakoon dump state says of each member, and replace the wrong one.`,
		Args:              cmds.Wants("GROUP"),
		ValidArgsFunction: cmds.groupsOnly,
		RunE: cmds.asks(func(c *cobra.Command, client *control.GroupsClient, args []string) error {
			r, err := client.Hash(c.Context(), args[0])
			if err != nil {
				return err
			}
			err = cmds.Print(r, func(w io.Writer) {
				fmt.Fprintf(w, "revision\t%d\n", r.Revision)
				for _, m := range r.Members {
					if m.Error != "" {
						fmt.Fprintf(w, "member %d\tnot compared: %s\n", m.Member, m.Error)
					} else {
						fmt.Fprintf(w, "member %d\t%s\n", m.Member, m.Hash)
					}
				}
			})
			if err == nil && !r.Equal {
				err = fmt.Errorf("group %s: its members have different states at revision %d", args[0], r.Revision)
			}
			return err
		}),
	}
}

func (cmds commands) lease() *cobra.Command {
	return cmds.Group("lease", "look at the leases of a group", &cobra.Command{
		Use:               "ls GROUP",
		Short:             "list the leases that are held",
		Args:              cmds.Wants("GROUP"),
		ValidArgsFunction: cmds.groupsOnly,
		RunE: cmds.asks(func(c *cobra.Command, client *control.GroupsClient, args []string) error {
			list, err := client.Leases(c.Context(), args[0])
			if err != nil {
				return err
			}
			return cmds.Print(list, func(w io.Writer) {
				fmt.Fprintln(w, "NAME\tOWNER\tFENCE\tRENEWED AT REVISION\tTIME TO LIVE")
				for _, l := range list {
					fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", show([]byte(l.Name)), l.Owner, l.Fence, l.Renewed, l.TTL)
				}
			})
		}),
	})
}
