# example campaigns
"""A campaign is a landing page, a DNS record and a row: all of them once, or none."""

from __future__ import annotations

import os
from typing import Any

import pytest
from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from botocore.exceptions import ClientError, ReadTimeoutError

import api
from idempotency import Retry
from provisioning import dns
from provisioning.funnels import Funnels
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.unit.campaigns import CAMPAIGN, DOMAIN, PATH, Campaigns
from tests.unit.service import stories
from tools.local import myfunnel
from tools.local.myfunnel import Fault

DNS_REJECTS = ClientError({"Error": {"Code": "InvalidChangeBatch", "Message": "no"}}, "ChangeResourceRecordSets")
DNS_IS_BUSY = ClientError({"Error": {"Code": "PriorRequestNotComplete"}}, "ChangeResourceRecordSets")
LEASE_SECONDS = 31
FOR_GOOD = 100


def nothing_is_left(campaigns: Campaigns) -> bool:
    return (campaigns.funnels, campaigns.routes, campaigns.api.rows) == ([], {}, [])


class TestLaunch:
    def test_makes_a_landing_page_a_dns_record_and_a_row(self, campaigns: Campaigns) -> None:
        answer = campaigns.launch()

        [funnel] = campaigns.funnels
        assert answer.status == 201
        campaign = answer.json
        assert campaign == {
            "id": campaign["id"],
            "name": "Spring",
            "domain": DOMAIN,
            "status": "live",
            "funnel_id": funnel,
            "landing_page_url": f"https://{DOMAIN}/",
        }
        assert answer.headers["location"] == [f"/dev/v1/campaigns/{campaign['id']}"]
        assert campaigns.routes == {DOMAIN: campaigns.myfunnel.funnels[funnel].hostname}
        assert campaigns.get(campaign["id"]).json == campaign

    def test_again_is_the_same_campaign(self, campaigns: Campaigns) -> None:
        first, again = campaigns.launch(), campaigns.launch()

        assert (again.body, again.replayed) == (first.body, True)
        assert len(campaigns.myfunnel.calls) == 1

    def test_belongs_to_its_principal(self, campaigns: Campaigns) -> None:
        id_ = campaigns.launch().json["id"]

        assert campaigns.get(id_, principal="bob").status == 404

    def test_reads_the_secret_once(self, campaigns: Campaigns, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[str] = []
        provider = SecretsProvider()
        event = "before-call.secrets-manager.*"
        provider.client.meta.events.register(event, lambda model, **_: read.append(model.name))
        monkeypatch.setattr(parameters, "SecretsProvider", lambda **_: provider)

        for number in range(3):
            assert campaigns.launch({**CAMPAIGN, "domain": f"{number}.{DOMAIN}"}, key=f"key-{number}").status == 201

        assert read == ["GetSecretValue"]
        provider.client.close()

    @pytest.mark.parametrize(
        "domain",
        [
            "",
            "example",
            "-a.example",
            "a-.example",
            "a..example",
            "a.example.",
            "A.example",
            "192.0.2.1",
            "a b.example",
        ],
    )
    def test_accepts_only_a_host_name(self, campaigns: Campaigns, domain: str) -> None:
        answer = campaigns.launch({**CAMPAIGN, "domain": domain})

        assert (answer.status, answer.problem) == (400, "body-invalid")
        assert [error["pointer"] for error in answer.json["errors"]] == ["#/domain"]
        assert campaigns.api.records == []


@pytest.mark.thorough
class TestWithoutWhatCampaignsNeed:
    """The default stack, which has no MyFunnelAPI and no zone, or one that lacks either."""

    @pytest.fixture(params=["MYFUNNEL_API_URL", "DNS_ZONE_ID"])
    def missing(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_is_refused_before_anything_is_claimed_or_reserved(
        self, campaigns: Campaigns, missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(missing, "")

        answer = campaigns.launch()

        assert (answer.status, answer.problem) == (404, "no-campaigns")
        assert (campaigns.api.records, campaigns.api.rows) == ([], [])

    def test_the_key_stays_free_for_the_day_on_which_there_are_campaigns(
        self, campaigns: Campaigns, missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setenv(missing, "")
            campaigns.launch()

        assert campaigns.launch().status == 201

    def test_what_was_launched_before_is_replayed(
        self, campaigns: Campaigns, missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        launched = campaigns.launch()
        monkeypatch.setenv(missing, "")

        again = campaigns.launch()

        assert (again.body, again.replayed) == (launched.body, True)

    def test_what_was_begun_before_waits_and_tells_an_operator_why(
        self, campaigns: Campaigns, clock: SetClock, missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        campaigns.myfunnel_fails()
        assert campaigns.launch().status == 503
        clock.advance(60)

        with monkeypatch.context() as patch:
            patch.setenv(missing, "")
            assert campaigns.recover() == {"taken_up": 1, "completed": 0}
        assert "no MyFunnelAPI and DNS zone" in campaigns.record["last_error"]

        clock.advance(60)
        assert campaigns.recover() == {"taken_up": 1, "completed": 1}


class TestDomainTaken:
    def test_is_a_final_answer_with_nothing_done(self, campaigns: Campaigns) -> None:
        campaigns.launch()

        taken = campaigns.launch(key="bobs", principal="bob")

        assert (taken.status, taken.problem) == (409, "domain-taken")
        assert "retry-after" not in taken.headers
        assert len(campaigns.myfunnel.calls) == len(campaigns.domains) == 1
        again = campaigns.launch(key="bobs", principal="bob")
        assert (again.body, again.replayed) == (taken.body, True)

    def test_by_a_campaign_that_is_not_finished_yet(self, campaigns: Campaigns) -> None:
        campaigns.myfunnel_fails()
        assert campaigns.launch().status == 503

        assert campaigns.launch(key="other").problem == "domain-taken"

    def test_does_not_outlast_a_campaign_that_failed(self, campaigns: Campaigns) -> None:
        campaigns.myfunnel_fails(status=422)
        assert campaigns.launch().status == 422

        assert campaigns.launch(key="other", principal="bob").status == 201


@pytest.mark.thorough
class TestMyFunnel:
    def test_answers_500_five_times(self, campaigns: Campaigns, clock: SetClock) -> None:
        campaigns.myfunnel_fails(times=5, status=500, retry_after=7)

        answers = [campaigns.launch() for _ in range(6)]

        assert [answer.status for answer in answers] == [503] * 5 + [201]
        assert [answer.headers.get("retry-after") for answer in answers] == [["7"]] * 5 + [None]
        assert len(campaigns.funnels) == 1
        assert len({call.key for call in campaigns.myfunnel.calls}) == 1

    @pytest.mark.parametrize(("times", "statuses"), [(1, [201]), (2, [503, 201])])
    def test_acts_and_drops_the_connection(self, campaigns: Campaigns, times: int, statuses: list[int]) -> None:
        campaigns.myfunnel.faults.append(Fault(drop=True, times=times))

        assert [campaigns.launch().status for _ in statuses] == statuses

        assert len(campaigns.funnels) == 1

    def test_hangs(self, campaigns: Campaigns, monkeypatch: pytest.MonkeyPatch) -> None:
        impatient = Funnels(os.environ["MYFUNNEL_API_URL"], lambda: myfunnel.TOKEN)
        timeout = impatient._http.connection_pool_kw["timeout"]
        monkeypatch.setitem(impatient._http.connection_pool_kw, "timeout", timeout.from_float(0.2))
        monkeypatch.setattr(api, "funnels", lambda: impatient)
        campaigns.myfunnel.faults.append(Fault(linger=0.5))

        assert [campaigns.launch().status for _ in range(2)] == [503, 201]

        assert len(campaigns.funnels) == 1

    def test_rejects_for_good(self, campaigns: Campaigns) -> None:
        campaigns.myfunnel_fails(status=422)

        answers = [campaigns.launch() for _ in range(2)]

        assert [(answer.status, answer.problem) for answer in answers] == [(422, "funnel-rejected")] * 2
        assert answers[0].body == answers[1].body
        assert len(campaigns.myfunnel.calls) == 1
        assert nothing_is_left(campaigns)


@pytest.mark.thorough
class TestDns:
    def test_is_busy_for_a_while(self, campaigns: Campaigns) -> None:
        campaigns.dns_fails(DNS_IS_BUSY, 2)

        assert [campaigns.launch().status for _ in range(3)] == [503, 503, 201]

        assert len(campaigns.myfunnel.calls) == 1

    def test_loses_an_answer(self, campaigns: Campaigns) -> None:
        campaigns.dns_fails(ReadTimeoutError(endpoint_url="https://route53.amazonaws.com"))

        assert [campaigns.launch().status for _ in range(2)] == [503, 201]

        assert campaigns.routes.keys() == {DOMAIN}


@pytest.mark.thorough
class TestASubtree:
    def test_has_no_campaign_outside_of_it(self, campaigns: Campaigns, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DNS_SUBTREE", "spring.shop.example")

        refused = campaigns.launch({**CAMPAIGN, "domain": "www.shop.example"}, key="outside")
        launched = campaigns.launch()

        assert (refused.status, refused.problem) == (422, "domain-rejected")
        assert "not in spring.shop.example" in refused.json["detail"]
        assert launched.status == 201
        assert campaigns.routes.keys() == {DOMAIN}
        assert len(campaigns.funnels) == 1

    def test_that_is_drawn_around_an_unfinished_campaign_leaves_nothing_of_it(
        self, campaigns: Campaigns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a campaign that was routed, though it does not know it
        with monkeypatch.context() as patch:
            route = dns.Dns.route

            def route_and_lose_the_answer(*arguments: Any) -> None:
                route(*arguments)
                raise Retry("Route 53 cannot be reached.")

            patch.setattr(dns.Dns, "route", route_and_lose_the_answer)
            assert campaigns.launch().status == 503
        assert campaigns.routes.keys() == {DOMAIN}

        # When its domain is not to be routed any more
        monkeypatch.setenv("DNS_SUBTREE", "winter.shop.example")
        api.dns.cache_clear()
        answer = campaigns.launch()

        # Then it fails, with nothing left behind
        assert (answer.status, answer.problem) == (422, "domain-rejected")
        assert nothing_is_left(campaigns)


@pytest.mark.thorough
class TestCompensation:
    """DNS rejects the domain, so that the landing page has to go."""

    @pytest.fixture(autouse=True)
    def dns_rejects(self, campaigns: Campaigns) -> None:
        campaigns.dns_fails(DNS_REJECTS)

    def test_undoes_everything_and_stores_the_failure(self, campaigns: Campaigns) -> None:
        answers = [campaigns.launch() for _ in range(2)]

        assert [(answer.status, answer.problem) for answer in answers] == [(422, "domain-rejected")] * 2
        assert answers[0].body == answers[1].body
        assert [call.method for call in campaigns.myfunnel.calls] == ["POST", "DELETE"]
        assert nothing_is_left(campaigns)
        assert campaigns.record["status"] == "COMPLETED"
        assert "request" not in campaigns.record

    def test_gives_the_domain_back_last(self, campaigns: Campaigns) -> None:
        campaigns.myfunnel_fails("DELETE")

        campaigns.launch()

        assert (len(campaigns.funnels), campaigns.domains) == (1, [DOMAIN])

    def test_that_fails_for_a_while_is_finished_by_retries(self, campaigns: Campaigns) -> None:
        campaigns.myfunnel_fails("DELETE", times=2, retry_after=9)

        answers = [campaigns.launch() for _ in range(4)]

        assert [answer.status for answer in answers] == [503, 503, 422, 422]
        assert answers[0].headers["retry-after"] == ["9"]
        assert answers[3].replayed
        assert nothing_is_left(campaigns)

    def test_that_was_acted_on_and_not_acknowledged_is_done_again(self, campaigns: Campaigns) -> None:
        campaigns.myfunnel.faults.append(Fault(method="DELETE", drop=True, times=2))

        assert [campaigns.launch().status for _ in range(2)] == [503, 422]

        assert [call.status for call in campaigns.myfunnel.calls] == [201, None, None, 404]

    def test_is_not_cancelled_by_a_crash(
        self, campaigns: Campaigns, clock: SetClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a crash between the deletion of the landing page and its checkpoint
        delete = Funnels.delete

        def delete_and_die(funnels: Funnels, id_: str) -> None:
            delete(funnels, id_)
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Funnels, "delete", delete_and_die)
            with pytest.raises(Killed):
                campaigns.launch()

        # When a retry comes, and DNS would take the domain now
        clock.advance(LEASE_SECONDS)
        answer = campaigns.launch()

        # Then the decision stands
        assert (answer.status, answer.problem) == (422, "domain-rejected")
        assert [call.method for call in campaigns.myfunnel.calls] == ["POST", "DELETE", "DELETE"]
        assert nothing_is_left(campaigns)

    def test_that_was_checkpointed_is_not_done_again(
        self, campaigns: Campaigns, clock: SetClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a crash after the landing page is gone for sure
        with monkeypatch.context() as patch:
            self.die_at(patch, "undo domain")
            with pytest.raises(Killed):
                campaigns.launch()

        clock.advance(LEASE_SECONDS)
        assert campaigns.launch().status == 422

        assert [call.method for call in campaigns.myfunnel.calls] == ["POST", "DELETE"]

    @staticmethod
    def die_at(patch: pytest.MonkeyPatch, step: str) -> None:
        store: Any = api.idempotent.lifecycle.store
        checkpoint = store.checkpoint

        def checkpoint_or_die(record: Any, name: str, *args: Any, **rows: Any) -> None:
            if name == step:
                raise Killed
            checkpoint(record, name, *args, **rows)

        patch.setattr(store, "checkpoint", checkpoint_or_die)


@pytest.mark.thorough
class TestCrashes:
    """Whatever crashes, and whoever carries on, a campaign is launched once, or leaves nothing."""

    def test_leave_one_of_everything(self, campaigns: Campaigns, clock: SetClock) -> None:
        for story in stories(campaigns.api, clock, PATH, CAMPAIGN, campaigns.empty):
            [funnel] = campaigns.funnels
            assert (story.status, story.json["funnel_id"]) == (201, funnel)
            assert campaigns.routes == {DOMAIN: campaigns.myfunnel.funnels[funnel].hostname}
            assert [row["id"] for row in campaigns.api.rows if row["id"].startswith("campaign#")] == [
                f"campaign#{story.json['id']}"
            ]

    @pytest.mark.slow
    def test_of_one_that_was_released_leave_one_of_everything(self, campaigns: Campaigns, clock: SetClock) -> None:
        def begin() -> None:
            campaigns.empty()
            campaigns.dns_fails(DNS_IS_BUSY)

        for story in stories(campaigns.api, clock, PATH, CAMPAIGN, begin):
            assert story.status == 201
            assert len(campaigns.funnels) == len(campaigns.routes) == 1

    @pytest.mark.slow
    def test_of_one_that_dns_rejects_leave_nothing(self, campaigns: Campaigns, clock: SetClock) -> None:
        def begin() -> None:
            campaigns.empty()
            campaigns.dns_fails(DNS_REJECTS, FOR_GOOD)

        for story in stories(campaigns.api, clock, PATH, CAMPAIGN, begin):
            assert (story.status, story.json["title"]) == (422, "The domain was rejected")
            assert nothing_is_left(campaigns)
