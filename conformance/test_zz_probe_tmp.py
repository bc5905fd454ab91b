import threading
from harness import clients
def test_p(pod):
    pod.yaml(tls=pod.write_pair(), runtime={"sql": {"memory_limit": "256MiB"}})
    server = pod.serve()
    n=1_342_177
    t=f"EXPLAIN ANALYZE SELECT value, value * 7919 % {n} AS k, rpad(CAST(value AS VARCHAR), 200, 'x') AS filler FROM generate_series(1, {n}) ORDER BY k"
    for _ in range(2):
        got=[]
        ths=[threading.Thread(target=lambda: got.append(clients.sql(server,t,deadline=40).status)) for _ in range(2)]
        [x.start() for x in ths]; [x.join() for x in ths]; print("Counter two at once", got)
    assert 0
