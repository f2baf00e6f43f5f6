// Package recovery makes a host that survives the only one that holds the groups of its
// cluster: what `ovs recover` does. It is for a person who knows that the hosts which a group
// needs are gone for good, and it works on a data directory that no process uses.
//
// # The order of what is durable
//
// Each step is done before the next, and all of them can be taken again (P8):
//
//  1. the decision: DIR/recovery.json says which groups become alone, in which life, and which
//     hosts are given up. From then on `ovs up` refuses the directory until step 6;
//  2. the record of the data directory: the life, and that deletion of data is suspended;
//  3. each group's log: the later life, of which the member here is the only voter (package
//     arakoon, Recover). A cut between two groups leaves some in the old life;
//  4. in the config group, which is opened alone: the roster has the later life, and the
//     members here; the hosts that were given up are removed from the cluster's records;
//  5. DIR/roster, of the config group's roster;
//  6. DIR/recovery.json: done.
//
// Before step 1 every host that the roster names is asked. Where a majority of a group's
// voters answers nothing is done: then there is nothing to recover.
//
// # One group anew
//
// With Options.From one group whose member is lost is made anew, beside others that are alone
// on this host: from a backup, or with nothing. mayMake says which. The steps are the same; in
// place of 3, pages of maps are put aside, as catalogs may be older than they are, and the group
// is made by arakoon.RestoreChanged:
//
//   - its numbers go on far behind those of the backup, and its life is above all that this
//     host has seen;
//   - it gets the generation of the others, so that it counts as no older copy, and what was
//     lost is one if it turns up;
//   - an NSM gets from the ABM which messages count as delivered, and what these said of disks.
//     Namespaces are never taken from there: one that the NSM does not know is refused by name,
//     and not made empty in its place;
//   - in the config group, the roster is that of DIR/roster where that is newer.
//
// The decision has the version 2 then, which an older release refuses.
package recovery
