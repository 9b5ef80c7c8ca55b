"""Two Ray nodes on this machine, for a test: prints the address, ends one node on a line of input, all at its end."""

import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster  # (Ray reads the environment)

SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20}

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={**SMALL, "include_dashboard": False})
    node = cluster.add_node(**SMALL)
    print(f"address={cluster.address}", flush=True)
    for _ in sys.stdin:
        cluster.remove_node(node, allow_graceful=False)
        print("removed", flush=True)
    cluster.shutdown()
